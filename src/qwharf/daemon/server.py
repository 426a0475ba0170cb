"""The daemon: one process per state folder that owns gateway, engines and state."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import logging.handlers
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

from qwharf import __version__
from qwharf.daemon import runfile
from qwharf.daemon.admin import Admin
from qwharf.daemon.handshake import Handshake
from qwharf.daemon.limits import Limits
from qwharf.daemon.lock import Lock
from qwharf.daemon.owner import owner_of
from qwharf.daemon.state import State
from qwharf.daemon.supervisor import Supervisor
from qwharf.errors import Conflict, PortInUse, QwharfError, StorageError, UsageError
from qwharf.gateway import app as gateway
from qwharf.settings import LOOPBACK, Settings

logger = logging.getLogger("qwharf.daemon")

DRAIN_SECONDS = 5.0
"""For answers that are under way when the daemon is asked to stop."""
LOCK_SECONDS = 2.0
"""Somebody may be looking whether the lock is held, which takes an instant."""
LOG_BYTES = 2 * 2**20
LOG_FILE = "daemon.log"


def run(settings: Settings, limits: Limits | None = None) -> None:
    """Be the daemon until SIGTERM, SIGINT or a client ends it.

    Raises:
        Conflict: a daemon runs for this state folder already.
        PortInUse: something else listens there.
        StorageError: the state folder cannot be written.
        InvalidFile: the state is damaged or of a newer qwharf.
        UsageError: a public address without a key.
    """
    handshake = Handshake()
    try:
        _prepare(settings)
        with _alone(settings), _logging(settings, quiet=handshake.wanted):
            asyncio.run(_Daemon(settings, handshake, limits).serve())
    except QwharfError as e:
        handshake.failed(e)
        raise


def _prepare(settings: Settings) -> None:
    if settings.host not in LOOPBACK and not settings.api_key:
        raise UsageError(
            "QWHARF_HOST",
            found=settings.host,
            expected="a loopback address while there is no API key",
            hint="set QWHARF_API_KEY before opening qwharf to other machines",
        )
    try:
        for folder in (settings.state_dir, settings.log_dir):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise cannot_write(settings, e) from e


def cannot_write(settings: Settings, error: OSError) -> StorageError:
    """The state folder is closed to us."""
    return StorageError(
        str(error.filename or settings.state_dir),
        found=error.strerror or str(error),
        expected="a state folder that can be written",
        hint="set QWHARF_HOME to a folder of yours",
    )


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    lock = Lock(runfile.lock_path(settings))
    try:
        taken = lock.acquire(LOCK_SECONDS)
    except OSError as e:
        raise cannot_write(settings, e) from e
    if not taken:
        other = runfile.read(settings)
        who = f"process {other.pid} at {other.url}" if other else "one that starts or stops"
        raise Conflict(
            "daemon",
            found=f"{who} for {settings.state_dir}",
            expected="no other daemon for this home",
            hint="`qwharf down --daemon` stops it; another QWHARF_HOME is another home",
        )
    try:
        runfile.remove(settings)  # of one that was killed: it must not be taken for ours
        yield
    finally:
        runfile.remove(settings)
        lock.release()


@contextlib.contextmanager
def _logging(settings: Settings, *, quiet: bool) -> Iterator[None]:
    """To a file of bounded size; in the foreground also to standard error."""
    handlers: list[logging.Handler] = []
    try:
        handlers.append(
            logging.handlers.RotatingFileHandler(
                settings.log_dir / LOG_FILE, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8"
            )
        )
    except OSError as e:
        raise cannot_write(settings, e) from e
    if not quiet:
        handlers.append(logging.StreamHandler(sys.stderr))
    form = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    root, ours = logging.getLogger(), logging.getLogger("qwharf")
    for handler in handlers:
        handler.setFormatter(form)
        root.addHandler(handler)
    level = ours.level
    ours.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a full disk is no reason to write tracebacks
    try:
        yield
    finally:
        ours.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _Daemon:
    def __init__(self, settings: Settings, handshake: Handshake, limits: Limits | None) -> None:
        self._settings = settings
        self._handshake = handshake
        self._limits = limits
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Open everything, wait for the end, close everything."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_exception)
        memory = State(settings.state_dir / "state.db")
        try:
            listening = _listen(settings)
            supervisor = Supervisor(memory, settings.log_dir, limits=self._limits)
            url = _url(settings.host, listening[0].getsockname()[1])
            supervisor.base_url = f"{url}/v1"
            app = gateway.build(supervisor, api_key=settings.api_key)
            Admin(
                supervisor, memory, stop=self._stop.set, state_dir=str(settings.state_dir)
            ).add_to(app)
            # Streams that would not end by themselves; the rest is given time.
            app.on_shutdown.append(_set(supervisor.closing))
            runner = web.AppRunner(
                app, access_log=None, handle_signals=False, shutdown_timeout=DRAIN_SECONDS
            )
            with _signals(loop, self._stop):
                try:
                    await runner.setup()
                    for one in listening:
                        await web.SockSite(runner, one).start()
                    supervisor.recover()
                    self._announce(url)
                    memory.add_event("", "daemon started", f"{__version__} at {url}")
                    await self._stop.wait()
                finally:
                    logger.info("stopping")
                    await runner.cleanup()
                    await supervisor.close()
            with contextlib.suppress(StorageError):
                memory.add_event("", "daemon stopped")
        finally:
            memory.close()
            logger.info("stopped")

    def _announce(self, url: str) -> None:
        try:
            runfile.write(
                self._settings,
                runfile.Running(
                    pid=os.getpid(), url=url, version=__version__, started_at=time.time()
                ),
            )
        except OSError as e:
            raise cannot_write(self._settings, e) from e
        logger.info("qwharf %s listens at %s (Ctrl-C stops it)", __version__, url)
        self._handshake.ready(url)


def _log_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    logger.error(
        "%s", context.get("message"), exc_info=error if isinstance(error, BaseException) else None
    )


def _set(event: asyncio.Event) -> Callable[[web.Application], Awaitable[None]]:
    async def on_shutdown(app: web.Application) -> None:
        event.set()

    return on_shutdown


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT end the daemon gracefully, a second one at once."""

    def obey() -> None:
        if stop.is_set():
            logger.warning("stopping at once")
            os._exit(1)  # engines follow by themselves, see child.py
        stop.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP"):  # the terminal of a daemon in the foreground was closed
        numbers.append(signal.SIGHUP)
    try:
        for number in numbers:
            loop.add_signal_handler(number, obey)
    except NotImplementedError:  # pragma: no cover - Windows
        for number in numbers:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(obey))
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in numbers:
                loop.remove_signal_handler(number)


def _listen(settings: Settings) -> list[socket.socket]:
    """Sockets at the address of ``settings`` (``localhost`` may be two).

    Raises:
        PortInUse: somebody else has it.
        UsageError: there is no such address here.
    """
    host, port = settings.host, settings.port
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                one = socket.create_server((str(address[0]), port), family=family, backlog=128)
            except OSError as e:
                if made and e.errno == errno.EADDRNOTAVAIL:
                    continue  # `localhost` where there is no IPv6
                raise
            one.setblocking(False)
            made.append(one)
            port = one.getsockname()[1]
    except OSError as e:
        for one in made:
            one.close()
        raise _cannot_listen(settings, e) from e
    return made


def _cannot_listen(settings: Settings, error: OSError) -> QwharfError:
    where = f"{settings.host}:{settings.port}"
    if error.errno in (errno.EADDRINUSE, getattr(errno, "WSAEADDRINUSE", -1)):
        free = settings.port % 65535 + 1
        return PortInUse(
            where,
            found=owner_of(settings.host, settings.port),
            expected="a free port",
            hint=f"choose another, e.g. `QWHARF_PORT={free} qwharf …`, or stop that program",
        )
    setting = "QWHARF_PORT" if error.errno in (errno.EACCES, errno.EPERM) else "QWHARF_HOST"
    return UsageError(
        setting,
        found=f"{where} ({error.strerror or error})",
        expected="an address of this machine and a port that you may use",
        hint="leave QWHARF_HOST and QWHARF_PORT unset for 127.0.0.1:8383",
    )


def _url(host: str, port: int) -> str:
    """How clients on this machine reach what listens at ``host``."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - no binding here
    return f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"
