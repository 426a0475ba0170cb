"""Models to run forward, made once."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "platforms")]

from models_at_hand import DENSE, MOE, random_model  # noqa: E402


@pytest.fixture(scope="session")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(MOE, tmp_path_factory.mktemp("forward") / "moe")


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(DENSE, tmp_path_factory.mktemp("forward") / "dense")
