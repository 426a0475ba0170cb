"""The Python interpreters of this machine: an engine's packages may exist for few versions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwharf.engines.running import environment
from qwharf.errors import EngineError

LOOK = (
    "import sys, json, importlib.util as u;"
    "print(json.dumps([list(sys.version_info[:3]), sys.implementation.name,"
    " bool(u.find_spec('venv') and u.find_spec('ensurepip')), sys.maxsize > 2**32]))"
)
LOOK_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that was asked for its version."""

    path: Path
    version: tuple[int, int, int]
    has_venv: bool
    """Whether it can make environments with pip in them (Debian packs that apart)."""

    @property
    def minor(self) -> str:
        """``3.11``."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def text(self) -> str:
        """``3.11.7``."""
        return ".".join(map(str, self.version))


def places(minor: str, environ: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Where a CPython ``minor`` may lie, the likeliest first; what is there need not be one."""
    env = os.environ if environ is None else environ
    base = Path(getattr(sys, "_base_executable", None) or sys.executable)
    yield base  # of the environment that runs us; asked for its version like all
    home = Path(env.get("HOME") or Path.home())
    for name in (f"python{minor}", "python3", "python"):
        for place in map(Path, env.get("PATH", os.defpath).split(os.pathsep)):
            if place.is_absolute() and place.name != "shims":  # pyenv's: below, without its script
                yield place / name
    pyenv = Path(env.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(env.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for folder, pattern in ((pyenv, f"{minor}.*"), (uv, f"cpython-{minor}*")):
        for found in sorted(folder.glob(pattern), key=_numbers, reverse=True):
            yield found / "bin" / f"python{minor}"
    for prefix in ("/usr/local", "/usr", "/opt/homebrew", f"/opt/homebrew/opt/python@{minor}"):
        yield Path(prefix) / "bin" / f"python{minor}"
    framework = Path("/Library/Frameworks/Python.framework/Versions")
    yield framework / minor / "bin" / f"python{minor}"


def _numbers(path: Path) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", path.name)]


def ask(path: Path) -> Interpreter | None:
    """What interpreter ``path`` is; ``None``: no CPython that starts."""
    if shutil.which(path) is None:
        return None
    try:
        done = subprocess.run(
            [str(path), "-I", "-c", LOOK],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            check=False,
            env=environment(),
        )
        version, name, has_venv, is_64 = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if name != "cpython" or not is_64:
        return None
    return Interpreter(path, (version[0], version[1], version[2]), has_venv)


def find(
    minors: Sequence[str], *, needs_venv: bool, environ: Mapping[str, str] | None = None
) -> Interpreter | None:
    """The first interpreter of one of the versions ``minors``, the best version first."""
    asked: dict[Path, Interpreter | None] = {}
    for minor in minors:
        for place in places(minor, environ):
            if place not in asked:
                asked[place] = ask(place)
            found = asked[place]
            if found and found.minor == minor and (found.has_venv or not needs_venv):
                return found
    return None


def missing(what: str, minors: Sequence[str]) -> EngineError:
    """The error for a machine that has none of them."""
    best = minors[0]
    without_venv = find(minors, needs_venv=False)
    if without_venv is not None:
        return EngineError(
            what,
            found=f"{without_venv.path} cannot make environments: it lacks venv or ensurepip",
            expected="a Python with both",
            hint=f"`apt install python{without_venv.minor}-venv`, or install uv (`pip install uv`)",
        )
    return EngineError(
        what,
        found=f"no CPython {' or '.join(minors)} on this machine (qwharf runs on "
        f"{sys.version_info.major}.{sys.version_info.minor})",
        expected=f"CPython {best}: there are packages of this engine for no other"
        if len(minors) == 1
        else "one of them",
        hint=f"`pip install uv`, which fetches one by itself, or install Python {best} "
        f"(`apt install python{best} python{best}-venv`, `pyenv install {best}`)",
    )
