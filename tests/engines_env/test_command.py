"""The commands, as a person and as a program use them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import Filled
from qwharf.cli.main import main
from qwharf.settings import Settings

pytestmark = pytest.mark.timeout(900)
"""Environments are made; on a busy machine that takes minutes."""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["engine", *words])
    return int(ended.value.code or 0)


def asked(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert run(*words, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_installing_what_is_there(at_filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("install", "mlx") == 0
    said = capsys.readouterr()
    assert said.out.startswith("mlx 0.32.2: 5 packages, Python 3.")
    assert str(at_filled.mlx.folder) in said.out
    record = asked(capsys, "install", "mlx==0.32.2")
    assert record["engine"] == "mlx" and record["packages"] == 5 and record["problems"] == []


def test_listing(at_filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    records = asked(capsys, "ls")
    (own,) = [r for r in records if r["source"] == "qwharf"]
    assert own["version"] == "0.32.2" and own["size_bytes"] > 0
    assert run("ls") == 0
    assert str(at_filled.mlx.folder) in capsys.readouterr().out


def test_trying(at_filled: Filled, capsys: pytest.CaptureFixture[str]) -> None:
    (health,) = asked(capsys, "doctor", "mlx")
    assert health["works"] and health["device"] == "cpu"
    assert run("doctor", "mlx==0.32.2") == 0
    assert "ok  mlx 0.32.2  on cpu" in capsys.readouterr().out


def test_one_that_does_not_work_is_told_by_the_exit_code(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    place = settings.data_dir / "engines/mlx/0.32.2"
    (place / "env/bin").mkdir(parents=True)
    (place / "env/bin/python").symlink_to(sys.executable)
    told = {"schema": 1, "engine": "mlx", "version": "0.32.2", "variant": "cpu"}
    (place / "engine.json").write_text(json.dumps(told), "utf-8")
    (health,) = asked(capsys, "doctor", "mlx", code=9)
    assert not health["works"] and "cannot be imported" in health["problems"][0]


def test_removing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    place = settings.data_dir / "engines/mlx"
    for version in ("0.1", "0.2"):
        (place / version).mkdir(parents=True)
        (place / version / "engine.json").write_text("{}", "utf-8")
    (place / ".building-0.3").mkdir()
    assert run("rm", "mlx") == 2  # which?
    assert "mlx==0.2, mlx==0.1" in capsys.readouterr().err
    assert asked(capsys, "rm", "mlx==0.1")["removed"] == ["mlx 0.1"]
    assert asked(capsys, "rm", "--unfinished")["removed"] == ["mlx/.building-0.3"]
    assert sorted(p.name for p in place.iterdir()) == [".locks", "0.2"]


@pytest.mark.parametrize(
    "words",
    [
        ("install", "tgi"),
        ("install", "vllm=="),
        ("install", "vllm==../x"),
        ("install", "llama.cpp"),
        ("install", "mlx", "--rocm"),
        ("rm",),
        ("rm", "mlx", "--unfinished"),
        ("rm", "vllm==0.0.1"),
        ("doctor", "nothing"),
    ],
)
def test_what_makes_no_sense_ends_with_2(settings: Settings, words: tuple[str, ...]) -> None:
    assert run(*words) == 2
    assert not (settings.data_dir / "engines").exists()


def test_a_system_engine_is_not_removed(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefix = tmp_path / "theirs"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    (prefix / "lib/python3.12/site-packages/sglang-0.5.23.dist-info").mkdir(parents=True)
    monkeypatch.setenv("PATH", str(prefix / "bin"))
    assert run("rm", "sglang") == 2
    assert str(prefix) in capsys.readouterr().err
    assert prefix.is_dir()


def test_told_to_stop_it_tidies_up(settings: Settings) -> None:
    place = settings.data_dir / "engines/mlx"
    command = [sys.executable, "-m", "qwharf", "engine", "install", "mlx", "--with", "pip"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as child:
        while not list(place.glob(".building-*/work")):
            assert child.poll() is None, child.stderr and child.stderr.read()
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 143
    assert [p.name for p in place.iterdir()] == [".locks"]
