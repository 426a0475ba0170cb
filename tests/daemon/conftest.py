"""Homes, a supervisor with a stand-in platform, and real daemons."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_homes import Home, Workshop

from qwharf import settings as settings_module
from qwharf.daemon.starting import free_port
from qwharf.daemon.state import State


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


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    memory = State(tmp_path / "state" / "state.db")
    made = Workshop(None, memory, tmp_path)  # type: ignore[arg-type]
    made.supervisor = made.again()
    yield made
    for supervisor in made.others:
        await supervisor.close()
    memory.close()
