"""A home without engines, one with something that plays llm-compressor, and small checkpoints."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qwharf import settings
from qwharf.calibration import running
from qwharf.settings import Settings
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint

SHAPES = {
    "dense": replace(TINY, num_hidden_layers=2),
    "moe": replace(TINY_MOE, num_hidden_layers=1, num_experts=4),
}
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.fixture(scope="session", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "bf16"
    shape = SHAPES[request.param]
    write_synthetic_checkpoint(shape, folder, vocab="tiny", chat_template=TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "bf16"
    write_synthetic_checkpoint(SHAPES["dense"], folder, vocab="tiny", chat_template=TEMPLATE)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return settings.load()


@pytest.fixture
def player(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As :func:`home`, with an environment in which the player runs instead of the script."""
    if sys.platform == "win32":
        pytest.skip("the environment's Python is a shell script here")
    folder = home.data_dir / "engines" / "llm-compressor" / "0.14.0.1"
    python = folder / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (folder / "engine.json").write_text(json.dumps({"schema": 1, "variant": "cpu"}))
    monkeypatch.setattr(running, "SCRIPT", Path(__file__).with_name("calibrated_layers.py"))
    return home
