"""Ollama's store, its double, and a deployment for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama_double import OllamaDouble
from services import Home

from qwharf.types import DeploymentSpec


@pytest.fixture
def models(home: Home) -> Path:
    """Ollama's store, with a model of the user's own in it."""
    path = home.path / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(path))
    return path


@pytest.fixture
def spec(home: Home, tiny_gguf: Path) -> DeploymentSpec:
    return home.spec(home.keep(tiny_gguf), "ollama")


@pytest.fixture
def server(home: Home, models: Path) -> Iterator[OllamaDouble]:
    with OllamaDouble(models) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        yield server
