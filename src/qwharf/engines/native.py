"""llama.cpp's own server, compiled for this very processor.

PyPI has llama.cpp's sources in one place: inside the source distribution of ``llama-cpp-python``,
under ``vendor/llama.cpp``. It is fetched with pip and built with CMake; CMake and Ninja come from
PyPI, too, where the machine lacks them. A compiler it must have.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from qwharf.engines import failures, known
from qwharf.engines.installed import SCRIPTS
from qwharf.engines.installers import WORK, Pip
from qwharf.engines.progress import State, Tell
from qwharf.engines.running import run
from qwharf.errors import EngineError, InvalidFile

WHAT = "llama.cpp native"
PYTHONS = ("3.12", "3.11", "3.13", "3.14", "3.10")
"""For pip alone; the server needs no Python."""
SOURCES = "vendor/llama.cpp"
PROGRAM = "llama-server"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",  # every instruction that this processor has
    "-DBUILD_SHARED_LIBS=OFF",  # one file
    "-DGGML_CCACHE=OFF",
    "-DLLAMA_OPENSSL=OFF",  # it listens on the loopback address and fetches nothing
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # would be downloaded while it builds
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)
NINJA = re.compile(r"\[(\d+)/(\d+)\] ")
MAKE = re.compile(r"\[\s*(\d+)%\] ")


def build(folder: Path, log: TextIO, tell: Tell) -> dict[str, Any]:
    """Build the server into ``folder``; what the manifest says of it.

    Raises:
        EngineError: no compiler, or it failed.
        NetworkError: the sources cannot be fetched.
        InvalidFile: they are not there where they were.
        StorageError: the disk is full.
    """
    compiler = require_compiler()
    recipe = known.native()
    tools = folder / "tools"
    pip = Pip(WHAT, tools, log, PYTHONS)
    pip.create(tell)
    tell(State("download", detail=f"{recipe.package} {recipe.version}"))
    wanted = ["scikit-build-core", *(t for t in ("cmake", "ninja") if shutil.which(t) is None)]
    pip.add(wanted, tell)
    archive = pip.source(recipe.package, recipe.version, tell)
    tell(State("unpack", detail=archive.name))
    source = unpack(archive, folder / "source")
    program = compile_server(source, folder / "build", tools / SCRIPTS, log, tell)
    (folder / SCRIPTS).mkdir()
    shutil.copy2(program, folder / SCRIPTS / PROGRAM)
    shutil.copy2(source / "LICENSE", folder / "LICENSE")
    for spent in (tools, folder / "source", folder / "build", folder / WORK):
        shutil.rmtree(spent)
    return {
        "compiled": True,
        "detail": f"llama.cpp {recipe.commit} of {recipe.package} {recipe.version}",
        "compiler": _version_of(compiler, log),
        "options": list(OPTIONS),
        "source": recipe.source,
        "seen": recipe.seen,
    }


def compile_server(source: Path, folder: Path, tools: Path, log: TextIO, tell: Tell) -> Path:
    """Compile the server in ``folder``; where it lies then.

    Args:
        source: llama.cpp's.
        folder: for what CMake makes.
        tools: a folder of programs, for the machines that lack CMake and Ninja.
        log: takes what they say.
        tell: is told how far they are.

    Raises:
        EngineError: the compiler or CMake failed.
        StorageError: the disk is full.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(tools)])
    cmake = shutil.which("cmake", path=path) or "cmake"
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=path) else []

    def step(argv: list[str]) -> None:
        finished = run(argv, extra={"PATH": path}, log=log, on_line=counter(tell))
        if finished.code:
            raise failures.explain(WHAT, finished.lines, log.name, doing="build")

    tell(State("compile", detail="configuring"))
    step([cmake, *generator, "-S", str(source), "-B", str(folder), *OPTIONS])
    jobs = str(usable_cores())
    step([cmake, "--build", str(folder), "--target", PROGRAM, "--parallel", jobs])
    return folder / "bin" / PROGRAM


def require_compiler() -> list[str]:
    """The C++ compiler that CMake will take: ``$CXX``, else the usual names.

    Raises:
        EngineError: there is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for words in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if found := shutil.which(words[0]):
            return [found, *words[1:]]
    raise EngineError(
        WHAT,
        found=f"no C++ compiler (looked for {named[0] if named else 'c++, g++, clang++'})",
        expected="GCC 10 or Clang 14, or newer",
        hint="`apt install g++`, `dnf install gcc-c++`, `xcode-select --install`; without one, "
        "the embedded llama.cpp does the same, up to a fifth slower while reading prompts",
    )


def counter(tell: Tell) -> Callable[[str], None]:
    """Understands how far Ninja or Make says that it is."""

    def line(text: str) -> None:
        if found := NINJA.match(text):
            done, total = int(found[1]), int(found[2])
            tell(State("compile", done, total, detail=text.rsplit("/", 1)[-1][:60]))
        elif found := MAKE.match(text):
            tell(State("compile", int(found[1]), 100))

    return line


def unpack(archive: Path, target: Path) -> Path:
    """llama.cpp's sources out of the source distribution.

    Raises:
        InvalidFile: it is no such archive, or they are not in it.
    """
    try:
        with tarfile.open(archive) as packed:
            wanted = [m for m in packed.getmembers() if f"/{SOURCES}/" in m.name and not m.isdev()]
            packed.extractall(target, wanted, filter="data")
    except (tarfile.TarError, EOFError) as e:
        raise InvalidFile(str(archive), found=str(e), expected="a .tar.gz of sources") from e
    found = sorted(target.glob(f"*/{SOURCES}"))
    if not found or not (found[0] / "CMakeLists.txt").is_file():
        raise InvalidFile(str(archive), found=f"no {SOURCES}", expected="llama.cpp's sources")
    return found[0]


def usable_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version_of(compiler: list[str], log: TextIO) -> str:
    said = run([*compiler, "--version"], log=log).lines
    return said[0] if said else compiler[0]
