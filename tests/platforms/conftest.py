"""Tiny models to start engines on."""

import json
import shutil
import sys
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
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    return disk_of("64k")
