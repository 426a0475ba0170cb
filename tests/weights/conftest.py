"""Recorded arrays, and small models on disk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    def load(name: str) -> dict[str, Any]:
        with np.load(GOLDENS / f"{name}.npz") as file:
            return dict(file)

    return load
