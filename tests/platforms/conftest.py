"""Tiny models to start engines on."""

import sys
from pathlib import Path

import pytest

from qwharf.artifacts.convert import convert
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture, Format

sys.path.insert(0, str(Path(__file__).parent))


def made(arch: Architecture, folder: Path) -> Path:
    write_synthetic_checkpoint(arch, folder / "checkpoint", vocab="tiny")
    path = folder / "model.gguf"
    convert(folder / "checkpoint", Format("gguf", "q4_k_m"), path, threads=1)
    return path


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(TINY, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def moe_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(TINY_MOE, tmp_path_factory.mktemp("moe"))
