"""Engines that are found but cannot run: for commands and refusals that depend on what is here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qwharf.engines.installed import ENVIRONMENT, MANIFEST, SCHEMA, home, python_of
from qwharf.settings import load


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    engine: str,
    version: str,
    variant: str = "cuda",
) -> Path:
    """Make ``engine`` the only one that is found; its folder."""
    monkeypatch.setenv("QWHARF_HOME", str(folder))
    monkeypatch.setenv("PATH", "")
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(variable, raising=False)
    place = home(engine, version, load())
    python = python_of(place / ENVIRONMENT)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    told = {"schema": SCHEMA, "engine": engine, "version": version, "variant": variant}
    (place / MANIFEST).write_text(json.dumps(told), "utf-8")
    return place
