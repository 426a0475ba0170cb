"""A package index of wheels made here, and an installation out of it that many tests look at."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import small_wheels

from qwharf.engines.install import install
from qwharf.engines.installed import Installed
from qwharf.engines.progress import State
from qwharf.settings import Settings


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    small_wheels.mlx(folder)
    small_wheels.vllm(folder)
    small_wheels.wheel(folder, "unheard-of", "1.0")
    return folder


@pytest.fixture(scope="session", autouse=True)
def only_our_index(wheelhouse: Path) -> Iterator[None]:
    """Pip and uv see nothing but the wheelhouse, whatever this machine's configuration says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("PIP_", "UV_"))]:
            patch.delenv(name)
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheelhouse))
        patch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        patch.setenv("UV_NO_CONFIG", "1")
        patch.setenv("UV_OFFLINE", "1")
        patch.setenv("UV_FIND_LINKS", str(wheelhouse))
        yield


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty home of qwharf's, also for commands."""
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path / "home"))
    return Settings(data_dir=tmp_path / "home" / "data", state_dir=tmp_path / "home" / "state")


class Filled:
    """A home into which the small mlx was installed, with what was told meanwhile."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = Settings(data_dir=home / "data", state_dir=home / "state")
        self.states: list[State] = []
        self.mlx: Installed = install(
            "mlx", settings=self.settings, tell=self.states.append, installer="pip"
        )


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    return Filled(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def at_filled(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> Filled:
    """For commands."""
    monkeypatch.setenv("QWHARF_HOME", str(filled.home))
    return filled
