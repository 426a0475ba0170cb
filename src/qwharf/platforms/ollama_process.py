"""The Ollama that runs here: found, started where it is only installed, and ended if we did that.

A server that we started belongs to the user who ran qwharf, outlives the daemon, and is ended when
the last deployment on it goes and nobody else has a model in it. One that was there before is
never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from qwharf.artifacts import disk
from qwharf.errors import EngineError
from qwharf.platforms.ollama_api import Ollama
from qwharf.settings import Settings
from qwharf.types import DeploymentSpec

START_SECONDS = 60.0
END_SECONDS = 10.0
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")


def program() -> str | None:
    """The ``ollama`` on the PATH."""
    return shutil.which("ollama")


def program_version(path: str) -> str | None:
    """What ``ollama --version`` says of itself; it needs no server."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=30, check=False, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = _VERSION.findall(done.stdout + done.stderr)
    return found[-1] if found else None


# -------------------------------------------------------------------------------- what runs here


def listener(url: str) -> psutil.Process | None:
    """The process that listens where ``url`` leads, if it may be known (it is this user's)."""
    port = urlsplit(url).port
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            with contextlib.suppress(psutil.Error):
                return psutil.Process(connection.pid)
    return None


def environment(process: psutil.Process | None) -> Mapping[str, str] | None:
    """The environment of a process, if it may be known."""
    if process is None:
        return None
    if process.pid == os.getpid():  # the system knows only what we started with
        return os.environ
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return None


# ------------------------------------------------------------------------------------- starting


def start_environment(spec: DeploymentSpec) -> dict[str, str]:
    """What a server started for ``spec`` is told; these settings are one for all its models."""
    told: dict[str, str] = {}
    if spec.kv_cache_type != "f16":
        told |= {"OLLAMA_KV_CACHE_TYPE": spec.kv_cache_type, "OLLAMA_FLASH_ATTENTION": "1"}
    if spec.parallel > 1:
        told["OLLAMA_NUM_PARALLEL"] = str(spec.parallel)
    return told


def log_path(settings: Settings) -> Path:
    """The log of a server that we start."""
    return settings.log_dir / "ollama-server.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The server that we started."""

    pid: int
    created_at: float
    """Tells it from a later process of the same number."""
    url: str

    def process(self) -> psutil.Process | None:
        """It, while it runs."""
        try:
            process = psutil.Process(self.pid)
            alive = process.status() != psutil.STATUS_ZOMBIE
            return process if alive and process.create_time() == self.created_at else None
        except psutil.Error:
            return None


def _record(settings: Settings) -> Path:
    return settings.state_dir / "ollama-server.json"


def started(settings: Settings) -> Started | None:
    """The server that we started, if it still runs."""
    try:
        found = json.loads(_record(settings).read_bytes())
        server = Started(
            pid=int(found["pid"]), created_at=float(found["created_at"]), url=str(found["url"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if server.process() is not None else None


def start(path: str, api: Ollama, spec: DeploymentSpec, settings: Settings) -> None:
    """Run ``ollama serve`` detached; returns when it answers.

    Raises:
        EngineError: it ended, or does not answer; with what it wrote.
        StorageError: its log cannot be written.
    """
    log = log_path(settings)
    flags: dict[str, object] = {"start_new_session": True}
    if sys.platform == "win32":  # pragma: no cover
        flags = {"creationflags": 0x00000008 | 0x00000200}  # detached, a group of its own
    with disk.storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        out = log.open("ab")
    with out:
        try:
            child = subprocess.Popen(
                [path, "serve"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **start_environment(spec)},
                cwd=Path.home() if Path.home().is_dir() else None,
                **flags,  # type: ignore[call-overload]
            )
        except OSError as e:
            raise EngineError(
                "ollama serve", found=e.strerror or str(e), hint=f"look at {path}"
            ) from e
    # Somebody must take note of its end, or it would stay a zombie as long as we live.
    threading.Thread(target=child.wait, name="ollama serve", daemon=True).start()
    with contextlib.suppress(psutil.Error):
        server = {"pid": child.pid, "created_at": psutil.Process(child.pid).create_time()}
        with disk.storage_errors(settings.state_dir):
            disk.write_json(_record(settings), {**server, "url": api.url})
    end = time.monotonic() + START_SECONDS
    while api.version() is None:
        if child.poll() is not None or time.monotonic() > end:
            said = tail(log, 20)
            stop(settings)
            raise EngineError(
                "ollama serve",
                found=next((x for x in reversed(said) if x.strip()), "no word of its own")[:500],
                expected=f"an answer at {api.url}",
                hint=f"its log: {log}",
            )
        time.sleep(0.05)


def stop(settings: Settings) -> None:
    """End the server that we started, if it still runs."""
    server = started(settings)
    process = server.process() if server else None
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
    with contextlib.suppress(OSError):
        _record(settings).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------ log


def log_files(settings: Settings) -> Sequence[Path]:
    """Where the log of the running server may be: ours, else the application's."""
    application = Path.home() / ".ollama" / "logs" / "server.log"
    return (log_path(settings), application) if started(settings) else (application,)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - lines * 400 - 4096))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
