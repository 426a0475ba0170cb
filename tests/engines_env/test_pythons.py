"""Finding an interpreter: asked, never trusted by its name."""

import json
import sys
from pathlib import Path

import pytest

from qwharf.engines import pythons
from qwharf.errors import EngineError


def fake(path: Path, version: list[int], name: str = "cpython", *, venv: bool = True) -> Path:
    """A program that answers like a Python of that version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = json.dumps([version, name, venv, True])
    path.write_text(f"#!/bin/sh\necho '{answer}'\n", "utf-8")
    path.chmod(0o755)
    return path


def environ(home: Path, *path: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": ":".join(map(str, path))}


def test_our_own_is_asked_for_its_version() -> None:
    found = pythons.ask(Path(sys.executable))
    assert found is not None and found.version == sys.version_info[:3]
    assert found.text == ".".join(map(str, sys.version_info[:3])) and found.has_venv


@pytest.mark.parametrize(
    "script", ["exit 1", "echo nonsense", "echo '[[3, 99, 0], \"pypy\", true, true]'", "echo '[1]'"]
)
def test_what_is_no_cpython_is_passed_over(tmp_path: Path, script: str) -> None:
    path = tmp_path / "python3.99"
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    assert pythons.ask(path) is None
    assert pythons.ask(tmp_path / "none") is None


def test_path_pyenv_and_uv_are_searched(tmp_path: Path) -> None:
    assert pythons.find(["3.99"], needs_venv=True, environ=environ(tmp_path)) is None
    uv = tmp_path / ".local/share/uv/python/cpython-3.99.1-linux-x86_64-gnu/bin/python3.99"
    fake(uv, [3, 99, 1])
    found = pythons.find(["3.99"], needs_venv=True, environ=environ(tmp_path))
    assert found is not None and found.path == uv
    for patch in ("3.99.2", "3.99.10"):
        fake(tmp_path / ".pyenv/versions" / patch / "bin/python3.99", [3, 99, int(patch[5:])])
    found = pythons.find(["3.99"], needs_venv=True, environ=environ(tmp_path))
    assert found is not None and found.text == "3.99.10"
    fake(tmp_path / "bin/python3", [3, 99, 0])
    on_path = environ(tmp_path, tmp_path / "bin")
    found = pythons.find(["3.98", "3.99"], needs_venv=True, environ=on_path)
    assert found is not None and found.path == tmp_path / "bin/python3"


def test_a_name_that_lies_is_not_believed(tmp_path: Path) -> None:
    fake(tmp_path / "bin/python3.99", [3, 98, 0])
    assert pythons.find(["3.99"], needs_venv=True, environ=environ(tmp_path, tmp_path / "bin")) is (
        None
    )


def test_one_that_cannot_make_environments_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "bin/python3.99", [3, 99, 0], venv=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert pythons.find(["3.99"], needs_venv=True) is None
    error = pythons.missing("vllm 0.32.0", ["3.99"])
    assert isinstance(error, EngineError)
    assert "python3.99" in error.found and "apt install python3.99-venv" in error.hint


def test_a_machine_without_it_is_told_what_to_install() -> None:
    error = pythons.missing("vllm 0.32.0", ["3.99"])
    assert "no CPython 3.99" in error.found and "uv" in error.hint
