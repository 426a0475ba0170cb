"""Homes, a supervisor with a stand-in platform, and real daemons."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from qwharf import settings as settings_module
from qwharf.daemon.client import DaemonClient
from qwharf.daemon.limits import Limits
from qwharf.daemon.starting import free_port
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


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Callable[..., Home]]:
    made: list[Home] = []

    def make(name: str = "home", **env: str) -> Home:
        asked = {"QWHARF_HOME": str(tmp_path / name), "QWHARF_PORT": str(free_port()), **env}
        made.append(Home(settings_module.load(asked)))
        return made[-1]

    yield make
    for home in made:
        home.close()


@pytest.fixture
def home(new_home: Callable[..., Home]) -> Home:
    return new_home()


@dataclass
class Workshop:
    """A supervisor in this process, over the stand-in platform."""

    supervisor: Supervisor
    memory: State
    folder: Path

    def again(self, **limits: object) -> Supervisor:
        """Another supervisor over the same memory, as a new daemon would have."""
        from stand_in_platform import StandIn

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


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    memory = State(tmp_path / "state" / "state.db")
    made = Workshop(None, memory, tmp_path)  # type: ignore[arg-type]
    made.supervisor = made.again()
    yield made
    for supervisor in made.others:
        await supervisor.close()
    memory.close()
