"""Starting the daemon in the background, once, however many commands want it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

from qwharf import __version__
from qwharf import settings as settings_module
from qwharf.daemon import runfile
from qwharf.daemon.handshake import VARIABLE
from qwharf.daemon.lock import Lock
from qwharf.daemon.wire import error_from_json
from qwharf.errors import Conflict, DaemonError, StorageError
from qwharf.settings import Settings

PATIENCE_SECONDS = 60.0
"""For a daemon to say that it listens; it takes half a second on an idle machine."""
LOG = "daemon.log"
START_LOG = "daemon-start.log"
"""Beside it: what a daemon says that dies before it can keep one."""


def ensure_running(settings: Settings) -> runfile.Running:
    """The running daemon; starts one if there is none.

    Raises:
        PortInUse, StorageError, InvalidFile, UsageError: why it cannot start, from itself.
        DaemonError: another version of qwharf runs, or it failed in another way.
    """
    running = runfile.find(settings)
    if running is None:
        running = _start_once(settings)
    if running.version != __version__:
        raise DaemonError(
            "daemon",
            found=f"qwharf {running.version} running, process {running.pid}",
            expected=f"qwharf {__version__}, as this command",
            hint=f"stop it with `kill {running.pid}`; its deployments come back with the next",
        )
    return running


def _start_once(settings: Settings) -> runfile.Running:
    try:
        settings.log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = Lock(runfile.start_lock_path(settings))
        taken = lock.acquire(PATIENCE_SECONDS)
    except OSError as e:
        raise _cannot_write(settings, e) from e
    if not taken:
        raise DaemonError(
            "daemon",
            found=f"another command busy starting it for {PATIENCE_SECONDS:.0f} seconds",
            hint=f"see {settings.log_dir / START_LOG}",
        )
    try:
        return _await_other(settings) or _spawn(settings)
    except Conflict:  # somebody was faster by hand
        running = _await_other(settings)
        if running is None:
            raise
        return running
    finally:
        lock.release()


def _cannot_write(settings: Settings, error: OSError) -> StorageError:
    return StorageError(
        str(error.filename or settings.state_dir),
        found=error.strerror or str(error),
        expected="a state folder that can be written",
        hint="set QWHARF_HOME to a folder of yours",
    )


def _await_other(settings: Settings) -> runfile.Running | None:
    """The daemon that another command has started meanwhile, or somebody by hand; one that is on
    its way down is waited for and then not counted.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while runfile.is_alive(settings):
        running = runfile.read(settings)
        if running is not None:
            return running
        if time.monotonic() > end:
            raise DaemonError(
                "daemon",
                found=f"one that neither listens nor ends, for {PATIENCE_SECONDS:.0f} seconds",
                hint=f"see {settings.log_dir / LOG}",
            )
        time.sleep(0.05)
    return None


def _spawn(settings: Settings) -> runfile.Running:
    start_log = settings.log_dir / START_LOG
    try:
        with start_log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "qwharf", "serve"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=_environment(settings),
                cwd=settings.state_dir,
                **_detached(),
            )
    except OSError as e:
        raise _cannot_write(settings, e) from e
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with process.stdout as pipe:
        line = _first_line(pipe, PATIENCE_SECONDS)
    told = _parsed(line)
    if line is None or "ready" in told:
        process.returncode = 0  # it outlives us: no warning that we leave it behind
        running = runfile.find(settings)
        if running is not None:
            return running
        raise DaemonError(
            "daemon",
            found=f"process {process.pid} does not listen",
            hint=f"see {start_log} and {settings.log_dir / LOG}",
        )
    process.wait()
    if told:
        raise error_from_json(told)
    words = _last_words(start_log)
    raise DaemonError(
        "daemon",
        found=f"it ended at once ({words or 'without a word'})",
        hint=f"`qwharf serve` starts it in the foreground; its log is {start_log}",
    )


def _first_line(pipe: BinaryIO | Any, seconds: float) -> bytes | None:
    """What came before the first newline or the end; ``None``: nothing in time."""
    end = time.monotonic() + seconds
    data = b""
    while b"\n" not in data:
        if (
            os.name != "nt"
            and not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]
        ):
            return None
        piece = os.read(pipe.fileno(), 65536)
        if not piece:
            break
        data += piece
    return data.split(b"\n")[0]


def _parsed(line: bytes | None) -> dict[str, Any]:
    try:
        told = json.loads(line or b"{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _environment(settings: Settings) -> dict[str, str]:
    """What makes the daemon's settings equal to ``settings``.

    Raises:
        DaemonError: they cannot be said in an environment.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("QWHARF_")}
    home = settings.state_dir.parent
    if settings.state_dir == home / "state" and settings.data_dir == home / "data":
        env["QWHARF_HOME"] = str(home.absolute())
    env |= {"QWHARF_HOST": settings.host, "QWHARF_PORT": str(settings.port), VARIABLE: "stdout"}
    if settings.api_key:
        env["QWHARF_API_KEY"] = settings.api_key
    if env.get("PYTHONPATH"):  # the daemon runs in another folder
        parts = env["PYTHONPATH"].split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join(str(Path(p).absolute()) for p in parts if p)
    as_read = settings_module.load(env)
    if (as_read.state_dir.absolute(), as_read.data_dir.absolute()) != (
        settings.state_dir.absolute(),
        settings.data_dir.absolute(),
    ):
        raise DaemonError(
            "daemon",
            found=f"folders {settings.data_dir} and {settings.state_dir}",
            expected="`data` and `state` in one home, or the defaults",
            hint="set QWHARF_HOME",
        )
    return env


def _detached() -> dict[str, Any]:
    """It lives on when the command, its terminal or its session end."""
    if sys.platform == "win32":  # pragma: no cover - Windows
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS
        return {"creationflags": flags}
    return {"start_new_session": True}


def _last_words(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""
