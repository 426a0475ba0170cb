"""The commands as a user runs them: a fresh process, an empty home, real output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from qwharf.cli import options
from qwharf.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def run(*argv: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qwharf", *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "QWHARF_HOME": str(home), "QWHARF_PORT": "18391", **env},
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run("--help", home=tmp_path)
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    assert not list(tmp_path.iterdir()), "help touches nothing"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, tmp_path: Path) -> None:
    done = run(name, "--help", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from qwharf.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'aiohttp', 'huggingface_hub', 'httpx2', 'tokenizers', 'jinja2',"
        " 'xllamacpp', 'psutil', 'tqdm', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_misspelt_command_gets_a_suggestion(tmp_path: Path) -> None:
    done = run("modles", home=tmp_path)
    assert done.returncode == 2
    assert "Did you mean `models`?" in done.stderr


def test_a_misspelt_model_gets_suggestions(tmp_path: Path) -> None:
    done = run("show", "qwen3:9b", home=tmp_path)
    assert done.returncode == 3
    assert "qwen3:8b" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_error_in_json(tmp_path: Path) -> None:
    done = run("show", "qwen3:9b", "--json", home=tmp_path)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "unknown_model"
    assert error["subject"] == "qwen3:9b"


def test_models_in_json_hold_the_family(tmp_path: Path) -> None:
    done = run("models", "--json", home=tmp_path)
    names = {x["model"]["name"] for x in json.loads(done.stdout)}
    sizes = ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")
    assert {f"qwen3:{s}" for s in sizes} <= names


def test_dry_run_prints_the_command_and_touches_nothing(tmp_path: Path) -> None:
    done = run("up", "pocket", "--dry-run", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "qwharf.platforms.llama_server" in done.stdout
    assert "sum" in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_cannot_fit_is_told_with_what_can(tmp_path: Path) -> None:
    done = run("up", "qwen3:235b-a22b", "--format", "safetensors:bf16", "--dry-run", home=tmp_path)
    assert done.returncode in (5, 6)
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_ps_without_a_daemon_says_so_and_starts_none(tmp_path: Path) -> None:
    done = run("ps", home=tmp_path)
    assert done.returncode == 0
    assert "Nothing is deployed" in done.stdout
    assert json.loads(run("ps", "--json", home=tmp_path).stdout) == []


def test_down_of_an_unknown_name(tmp_path: Path) -> None:
    done = run("down", "nobody", home=tmp_path)
    assert done.returncode == 12
    assert "nobody" in done.stderr


def test_a_read_only_home_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    done = run("up", "pocket", home=file / "home")
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    done = run("completion", shell, home=tmp_path)
    assert done.returncode == 0
    assert "_QWHARF_COMPLETE" in done.stdout


def test_the_reference_is_what_help_says(tmp_path: Path) -> None:
    assert run("dev", "docs", str(tmp_path / "made"), home=tmp_path).returncode == 0
    made = (tmp_path / "made" / "commands.md").read_text("utf-8")
    written = (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8")
    assert written == made, "stale: run `make docs`"


def test_a_bad_port_is_told(tmp_path: Path) -> None:
    done = run("ps", home=tmp_path, QWHARF_PORT="http")
    assert done.returncode == 2
    assert "QWHARF_PORT" in done.stderr


def test_convert_to_what_cannot_be_made(tmp_path: Path) -> None:
    for format, words in (("iq2_xs", "importance"), ("compressed-tensors", "w4a16")):
        done = run("convert", "pocket", "--to", format, home=tmp_path)
        assert done.returncode == 5 and words in done.stderr and "mlx:" in done.stderr


@pytest.mark.parametrize("text", ["", "GB", "1XB", "-1GB", "1 i", "١GB"])
def test_a_size_that_is_none(tmp_path: Path, text: str) -> None:
    done = run("convert", "pocket", "--to", "q8_0", "--memory", text, home=tmp_path)
    assert done.returncode == 2 and "500MB" in done.stderr


def test_sizes() -> None:
    known = {"1GB": 10**9, "1.5 GiB": 3 << 29, "500m": 5 * 10**8, "12": 12, "2k": 2000}
    context = click.Context(click.Command("x"))
    for text, size in known.items():
        assert options.size(context, click.Option(["--x"]), text) == size
