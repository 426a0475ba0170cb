"""One engine as a child process: started, listened to, stopped, and never left behind.

That a child does not outlive the daemon, even one that is killed, rests on two things: on Linux
the kernel kills it then (:mod:`qwharf.daemon.leash`); everywhere its stdin is a pipe that the
daemon holds open, whose end tells an engine that it is alone (qwharf's own engines obey that).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from qwharf.daemon.log import EngineLog
from qwharf.errors import EngineError
from qwharf.types import Launch

logger = logging.getLogger("qwharf.daemon")

STOP_SECONDS = 8.0
"""Between asking an engine to stop and killing it."""
PIPE_SECONDS = 2.0
"""For the last words of a dead engine, should somebody else hold its pipe open."""
READ_BYTES = 65536
LEASH = Path(__file__).with_name("leash.py")
SECRETS = frozenset(
    {"QWHARF_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"}
)


class Child:
    """A running (or dead) engine. Made by :meth:`start`."""

    def __init__(self, process: asyncio.subprocess.Process, log: EngineLog, launch: Launch) -> None:
        self.pid = process.pid
        self.launch = launch
        self._process = process
        self._log = log
        self._on_line: Callable[[str], None] | None = None
        self._reading = asyncio.create_task(self._read(), name=f"log of engine {self.pid}")
        self._exited = asyncio.create_task(self._wait(), name=f"engine {self.pid}")
        self.started_at = _started_at(self.pid)

    @classmethod
    async def start(cls, launch: Launch, log: EngineLog) -> Child:
        """Start ``launch``; what it says goes to ``log``.

        Raises:
            EngineError: the program cannot be run.
        """
        log.begin(f"--- qwharf: starting {' '.join(launch.argv)}")
        program = launch.argv[0]
        try:
            if shutil.which(program) is None:
                raise FileNotFoundError(2, "not found, or not to be run")
            process = await asyncio.create_subprocess_exec(
                *_on_a_leash(launch.argv),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_environment(launch),
                start_new_session=True,  # Ctrl-C in a terminal is for the daemon
            )
        except OSError as e:
            raise EngineError(
                program, found=e.strerror or str(e), expected="a program that can be run"
            ) from e
        return cls(process, log, launch)

    def on_line(self, tell: Callable[[str], None] | None) -> None:
        """Tell ``tell`` each line from now on."""
        self._on_line = tell

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - it is a pipe
        while data := await stream.read(READ_BYTES):
            for line in self._log.feed(data):
                if self._on_line is not None:
                    self._on_line(line)
            await asyncio.sleep(0)  # a flood must not keep others waiting

    async def _wait(self) -> int:
        code = await self._process.wait()
        await asyncio.wait([self._reading], timeout=PIPE_SECONDS)
        self._reading.cancel()
        self._kill_group()  # helpers that it left behind
        self._log.end(f"--- qwharf: engine {self.pid} ended: {describe_exit(code)}")
        return code

    @property
    def exit_code(self) -> int | None:
        """As :attr:`subprocess.Popen.returncode`; ``None`` while it lives."""
        return self._exited.result() if self._exited.done() else None

    async def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, once it is dead and all it said was taken; ``None``: it still lives
        after ``seconds``.
        """
        await asyncio.wait([self._exited], timeout=seconds)
        return self.exit_code

    async def stop(self, grace_seconds: float = STOP_SECONDS) -> int:
        """Ask it to end, then make it; returns when it is dead."""
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            if grace_seconds <= 0 or await self.wait(grace_seconds) is None:
                self.kill()
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """Make it end now."""
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._kill_group()

    def _kill_group(self) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def signs_of_life(self) -> tuple[float, float]:
        """Two numbers that grow: with its work (output, memory, reading), and with CPU time."""
        work, cpu = float(self._log.received_bytes), 0.0
        for process in self._family():
            with contextlib.suppress(psutil.Error, OSError):
                times = process.cpu_times()
                cpu += times.user + times.system
                work += process.memory_info().rss
                if hasattr(process, "io_counters"):
                    work += process.io_counters().read_chars
        return work, cpu

    def _family(self) -> list[psutil.Process]:
        """It and its own children; looks at all processes, so not for every request."""
        try:
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        except (psutil.Error, OSError):
            return []

    def listens_on(self, port: int) -> bool | None:
        """Whether this child is who listens on ``port``; ``None``: the system does not tell."""
        try:
            return any(
                c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port
                for process in self._family()
                for c in process.net_connections("tcp")
            )
        except (psutil.AccessDenied, NotImplementedError):
            return None
        except (psutil.Error, OSError):
            return False

    def rss_bytes(self) -> int | None:
        """Memory that it and its own children hold now."""
        if self._exited.done():
            return None
        try:
            return sum(int(p.memory_info().rss) for p in self._family()) or None
        except (psutil.Error, OSError):
            return None


def _environment(launch: Launch) -> dict[str, str]:
    """The daemon's environment without its secrets.

    An engine in Python speaks without delay and imports nothing from the folder it is run in.
    """
    kept = {k: v for k, v in os.environ.items() if k not in SECRETS}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", **launch.env}


def describe_exit(code: int) -> str:
    """``code`` in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _started_at(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None


def kill_orphan(pid: int, started_at: float) -> bool:
    """Kill the engine of a daemon that died, if it still lives; whether it did."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started_at) > 0.1:
            return False  # the number was given to another process
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait(5)
    except (psutil.Error, OSError):
        return False
    return True


def _on_a_leash(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command with what makes the kernel kill it when we die, where the kernel can."""
    if sys.platform != "linux":
        return argv
    return (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *argv)
