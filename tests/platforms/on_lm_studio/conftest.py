"""LM Studio's home, its double, and a deployment for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_studio_double import LmStudioDouble
from services import Home

from qwharf.types import Artifact, DeploymentSpec


@pytest.fixture
def studio(home: Home) -> Path:
    """LM Studio's home, with a model of the user's own in it."""
    path = home.path / ".lmstudio"
    theirs = path / "models" / "acme" / "other-GGUF"
    theirs.mkdir(parents=True)
    (theirs / "notes.txt").write_text("mine")
    return path


@pytest.fixture
def artifact(home: Home, tiny_gguf: Path) -> Artifact:
    return home.keep(tiny_gguf)


@pytest.fixture
def spec(home: Home, artifact: Artifact) -> DeploymentSpec:
    return home.spec(artifact, "lmstudio", name="My_Tiny")


@pytest.fixture
def server(home: Home, studio: Path) -> Iterator[LmStudioDouble]:
    with LmStudioDouble(studio) as server:
        home.patch.setenv("LMSTUDIO_URL", server.url)
        yield server
