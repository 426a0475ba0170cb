"""Tiny models to start engines on."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwharf.artifacts.convert import convert
from qwharf.testing import TINY, TINY_MOE, config_json, write_synthetic_checkpoint
from qwharf.types import Architecture, Format

sys.path.insert(0, str(Path(__file__).parent))

from launch_specs import QWEN3_8B
from services import Home, new_home  # beside this file


def made(arch: Architecture, folder: Path) -> Path:
    write_synthetic_checkpoint(arch, folder / "checkpoint", vocab="tiny")
    path = folder / "model.gguf"
    convert(folder / "checkpoint", Format("gguf", "q4_k_m"), path, threads=1)
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def weights(tiny_gguf: Path) -> Callable[[Format], Path]:
    """The tiny model in the formats that engines are started on."""

    def find(format: Format) -> Path:
        return tiny_gguf if format.container == "gguf" else tiny_gguf.parent / "checkpoint"

    return find


@pytest.fixture(scope="session")
def stretchable(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of a hybrid Qwen3-8B, and no weights."""
    folder = tmp_path_factory.mktemp("stretchable")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tiny_gguf.parent / "checkpoint" / name, folder)
    (folder / "config.json").write_text(json.dumps(config_json(QWEN3_8B, "bf16")), "utf-8")
    return folder


@pytest.fixture(scope="session")
def moe_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(TINY_MOE, tmp_path_factory.mktemp("moe"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with new_home(tmp_path / "home") as home:
        yield home


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than ``tmp_path``."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at hand")
    made = Path(tempfile.mkdtemp(dir=memory))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        done = 1
    if done != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
