"""Homes with real daemons, and a supervisor with a stand-in platform."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from stand_in_platform import StandIn

from qwharf.daemon.client import DaemonClient
from qwharf.daemon.limits import Limits
from qwharf.daemon.state import State
from qwharf.daemon.supervisor import Supervisor
from qwharf.settings import Settings

HERE = Path(__file__).parent


def until(what: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait until ``what`` holds; the limit only ends a test that has failed."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


async def eventually(what: Callable[[], object]) -> None:
    """The same, while the event loop goes on."""
    await asyncio.to_thread(until, what)


def is_dead(pid: int) -> bool:
    """Whether all of it has ended: its first thread may be a zombie while others hold sockets."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


@dataclass
class Home:
    """A home with a daemon that can be started, killed and started again."""

    settings: Settings
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def client(self) -> DaemonClient:
        return DaemonClient(self.settings)

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("QWHARF_")}
        kept |= {
            "QWHARF_HOME": str(self.settings.state_dir.parent),
            "QWHARF_PORT": str(self.settings.port),
        }
        return kept | ({"QWHARF_API_KEY": self.settings.api_key} if self.settings.api_key else {})

    def serve(self) -> subprocess.Popen[bytes]:
        """The daemon with the stand-in platform; returns when it listens."""
        daemon = subprocess.Popen(
            [sys.executable, str(HERE / "stand_in_daemon.py")],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.daemons.append(daemon)
        until(lambda: self.client.is_running() or daemon.poll() is not None)
        assert daemon.poll() is None, "the daemon did not start"
        return daemon

    def close(self) -> None:
        if self.client.is_running():
            self.client.shutdown()
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()


@dataclass
class Workshop:
    """A supervisor in this process, over the stand-in platform."""

    supervisor: Supervisor
    memory: State
    folder: Path

    def again(self, **limits: object) -> Supervisor:
        """Another supervisor over the same memory, as a new daemon would have."""
        supervisor = Supervisor(
            self.memory,
            self.folder / "logs",
            limits=Limits(**{**QUICK, **limits}),  # type: ignore[arg-type]
            platform_of=lambda name: StandIn(),
        )
        supervisor.base_url = "http://127.0.0.1:1/v1"
        self.others.append(supervisor)
        return supervisor

    others: list[Supervisor] = field(default_factory=list)


QUICK = {"poll_seconds": 0.02, "stop_seconds": 1.0, "backoff_seconds": (0.0, 0.02)}
