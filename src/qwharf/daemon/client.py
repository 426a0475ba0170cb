"""The daemon as commands see it: plain calls, errors that stay themselves.

Where it listens is read from its run file, and that it lives from its lock
(:mod:`qwharf.daemon.runfile`), so another program on the port, or the daemon of another home, is
never taken for it, nor sent the key. Imports nothing heavy: ``qwharf ps`` must be quick, and the
standard library's HTTP client loads four times faster than others.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from qwharf.codec import decode, encode
from qwharf.daemon import runfile
from qwharf.daemon.wire import HEARTBEAT_SECONDS, PREFIX, deployment_path, error_from_json
from qwharf.errors import DaemonError, QwharfError, UnknownDeployment
from qwharf.settings import Settings
from qwharf.types import Deployment, DeploymentSpec, Report

if TYPE_CHECKING:
    from http.client import HTTPResponse
    from socket import socket

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""For an ordinary answer."""
WORK_SECONDS = 120.0
"""For one that waits for a file to be checked, or for an engine to end."""
STREAM_SECONDS = 12 * HEARTBEAT_SECONDS
"""Without a sign of life on a stream that has them."""
SHUTDOWN_SECONDS = 60.0


class DaemonClient:
    """Talks to the daemon of ``settings``; holds no connection.

    Every method but :meth:`is_running` and :meth:`ensure_running` raises:

    Raises:
        DaemonError: there is no daemon, or it does not answer as one.
        QwharfError: what the daemon raised, as the same class.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    # --------------------------------------------------------------------------------- daemon

    def is_running(self) -> bool:
        """Whether the daemon of this home lives and listens."""
        return runfile.find(self._settings) is not None

    def ensure_running(self) -> None:
        """Start the daemon in the background if it does not run; returns when it answers.

        Raises:
            PortInUse, StorageError, InvalidFile, UsageError: why it cannot, from itself.
            DaemonError: another version of qwharf runs, or it failed in another way.
        """
        from qwharf.daemon.launching import ensure_running

        ensure_running(self._settings)

    def status(self) -> dict[str, Any]:
        """``program``, ``version``, ``pid``, ``started_at``, ``state_dir``, ``deployments``."""
        return dict(self._ask("GET", f"{PREFIX}/status"))

    def shutdown(self) -> None:
        """Stop the daemon; returns when it is gone. What runs comes back with the next."""
        pid = self._ask("POST", f"{PREFIX}/shutdown").get("pid")
        end = time.monotonic() + SHUTDOWN_SECONDS
        while runfile.is_alive(self._settings):
            again = runfile.read(self._settings)
            if again is not None and again.pid != pid:
                return  # somebody has started the next one already
            if time.monotonic() > end:
                raise DaemonError(
                    "daemon",
                    found=f"process {pid} alive {SHUTDOWN_SECONDS:.0f} seconds after it was asked "
                    "to stop",
                    hint=f"`kill -9 {pid}`; its engines end with it",
                )
            time.sleep(0.05)

    def headers(self) -> dict[str, str]:
        """What every request to the daemon must carry."""
        key = self._settings.api_key
        return {"authorization": f"Bearer {key}"} if key else {}

    def url(self) -> str:
        """Where the daemon listens, without a trailing slash."""
        running = runfile.find(self._settings)
        if running is None:
            raise self._not_running()
        return running.url

    def probe_url(self, name: str) -> str:
        """Below it, the routes of ``name``'s engine that only tell: ``/apply-template`` …"""
        return self.url() + deployment_path(name, "probe")

    # ---------------------------------------------------------------------------- deployments

    def list(self) -> list[Deployment]:
        """All deployments, oldest first."""
        answer = self._ask("GET", f"{PREFIX}/deployments")
        return [*_decoded(tuple[Deployment, ...], answer, "deployments")]

    def get(self, name: str) -> Deployment:
        """One deployment.

        Raises:
            UnknownDeployment: there is none of that name, or no daemon at all.
        """
        self._must_run_for(name)
        return _decoded(Deployment, self._ask("GET", deployment_path(name)), "deployment")

    def deploy(
        self, spec: DeploymentSpec, on_progress: Callable[[str], None] | None = None
    ) -> Deployment:
        """Run ``spec``; returns when it is ready. One that runs already is returned as it is.

        Args:
            spec: what to run.
            on_progress: is told what goes on, in a few words each.

        Raises:
            EngineError: the engine could not; ``found`` holds its own words.
            Conflict: something else runs under that name.
            UsageError, FormatUnavailable, InvalidFile: the platform refuses it.
        """
        call = ("POST", f"{PREFIX}/deployments", encode(spec))
        with contextlib.closing(self._stream(*call, seconds=STREAM_SECONDS)) as lines:
            for line in lines:
                told = _parsed(line)
                if "progress" in told:
                    if on_progress is not None:
                        on_progress(str(told["progress"]))
                elif "deployment" in told:
                    return _decoded(Deployment, told, "deployment")
                elif told:
                    raise error_from_json(told)
        raise DaemonError(
            "daemon",
            found=f"it ended while `{spec.name}` was starting",
            hint="see daemon.log in the folder of logs (`qwharf doctor` shows it); run it again",
        )

    def remove(self, name: str) -> None:
        """Stop and forget a deployment; returns when its engine is gone.

        Raises:
            UnknownDeployment: there is none of that name, or no daemon at all.
        """
        self._must_run_for(name)
        self._ask("DELETE", deployment_path(name), seconds=WORK_SECONDS)

    def logs(self, name: str, *, tail: int = 200, follow: bool = False) -> Iterator[str]:
        """The last ``tail`` lines of its log; with ``follow``, new ones as they come, until the
        deployment or the daemon is stopped.

        Raises:
            UnknownDeployment: there is none of that name, or no daemon at all.
        """
        self._must_run_for(name)
        query = urlencode({"tail": tail, "follow": int(follow)})
        path = f"{deployment_path(name, 'logs')}?{query}"
        seconds = None if follow else ANSWER_SECONDS
        with contextlib.closing(self._stream("GET", path, seconds=seconds)) as lines:
            for line in lines:
                yield line.decode("utf-8", "replace").rstrip("\n")

    def put_report(self, name: str, report: Report) -> None:
        """Keep ``report`` with the deployment ``name``; it is the verdict on it from now on."""
        self._ask("POST", deployment_path(name, "reports"), encode(report))

    def report(self, name: str) -> Report | None:
        """The latest report on ``name``, if there is one."""
        answer = self._ask("GET", deployment_path(name, "reports"))
        found = _decoded(tuple[Report, ...], answer, "reports")
        return found[0] if found else None

    # ---------------------------------------------------------------------------------- wire

    def _not_running(self) -> DaemonError:
        return DaemonError(
            "daemon",
            found="none running for this home",
            hint="`qwharf up MODEL` starts one, or `qwharf serve`",
        )

    def _must_run_for(self, name: str) -> None:
        if not self.is_running():
            raise UnknownDeployment(
                name, found="no daemon running", hint="`qwharf up MODEL` deploys one"
            )

    def _ask(
        self, method: str, path: str, body: Any = None, seconds: float = ANSWER_SECONDS
    ) -> dict[str, Any]:
        call = self._open(method, path, body, seconds)
        try:
            return _parsed(call.response.read())
        except _trouble() as e:
            raise _silent(call.url, e) from e
        finally:
            call.close()

    def _stream(
        self, method: str, path: str, body: Any = None, *, seconds: float | None
    ) -> Generator[bytes, None, None]:
        """The lines of an answer as they come; ``seconds``: the longest silence between two."""
        call = self._open(method, path, body, WORK_SECONDS)
        try:
            call.sock.settimeout(seconds)
            while line := call.response.readline():
                yield line
        except _trouble() as e:
            raise _silent(call.url, e) from e
        finally:
            call.close()

    def _open(self, method: str, path: str, body: Any, seconds: float) -> _Call:
        """An answer with status 2xx; others are raised as the errors that they tell of."""
        import http.client

        url = self.url()
        where = urlsplit(url)
        line = http.client.HTTPConnection(where.hostname or "", where.port, timeout=seconds)
        content = None if body is None else json.dumps(body).encode("utf-8")
        headers = {**self.headers(), "content-type": "application/json", "connection": "close"}
        try:
            line.connect()
            sock = line.sock  # the connection lets go of it once the answer begins
            line.request(method, path, content, headers)
            response = line.getresponse()
            if response.status >= 300:
                raise self._refused(response.status, response.read(2**20))
        except BaseException as e:
            line.close()
            if isinstance(e, _trouble()):
                raise _silent(url, e) from e
            raise
        return _Call(url, sock, response)

    def _refused(self, status: int, body: bytes) -> QwharfError:
        if status == 401:
            return DaemonError(
                "QWHARF_API_KEY",
                found="a key that the daemon does not accept"
                if self._settings.api_key
                else "no key, but the daemon wants one",
                expected="the key that the daemon was started with",
                hint="set QWHARF_API_KEY to it",
            )
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if isinstance(told, dict) and "error" in told:
            return error_from_json(told)
        return DaemonError("daemon", found=f"HTTP {status} with {body[:100]!r}")


@dataclass(slots=True)
class _Call:
    url: str
    sock: socket
    response: HTTPResponse

    def close(self) -> None:
        self.response.close()
        self.sock.close()


def _trouble() -> tuple[type[Exception], ...]:
    from http.client import HTTPException

    return OSError, HTTPException


def _silent(url: str, error: Exception) -> DaemonError:
    if isinstance(error, TimeoutError):
        return DaemonError(
            "daemon",
            found=f"no answer from {url} in time",
            hint="look at daemon.log in the folder of logs (`qwharf doctor` shows it)",
        )
    return DaemonError(
        "daemon",
        found=f"the connection to {url} broke ({str(error) or type(error).__name__})",
        hint="it may have been stopped just now: run it again",
    )


def _decoded(kind: type[T], answer: dict[str, Any], key: str) -> T:
    try:
        return decode(kind, answer[key])
    except (ValueError, KeyError) as e:
        raise _another_version(e) from e


def _parsed(content: bytes) -> dict[str, Any]:
    if not content.strip():
        return {}
    try:
        found = json.loads(content)
    except ValueError as e:
        raise _another_version(e) from e
    if not isinstance(found, dict):
        raise _another_version(TypeError(type(found).__name__))
    return found


def _another_version(error: Exception) -> DaemonError:
    return DaemonError(
        "daemon",
        found=f"an answer in an unknown shape ({str(error)[:200]})",
        expected="a daemon of the same version",
        hint="see `qwharf doctor`; stop the daemon that runs, the next one takes over",
    )
