"""Compiling: a small program where llama.cpp would be, built with the machine's own tools."""

import shutil
from pathlib import Path

import pytest
import small_wheels

from qwharf import engines
from qwharf.engines import native
from qwharf.engines.install import install
from qwharf.engines.progress import State, quiet
from qwharf.errors import EngineError, InvalidFile, UsageError
from qwharf.settings import Settings

pytestmark = pytest.mark.timeout(900)
"""Environments are made; on a busy machine that takes minutes."""

needs_tools = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("c++") is None, reason="no CMake or compiler here"
)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index that has the sources."""
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@needs_tools
def test_it_is_built(settings: Settings, sources: Path) -> None:
    small_wheels.llama_cpp_python(sources)
    states: list[State] = []
    made = install("llama.cpp", None, "native", settings=settings, tell=states.append)
    assert made == engines.find("llama.cpp", "native", settings)
    assert sorted(p.name for p in made.folder.iterdir()) == ["LICENSE", "bin", "engine.json"]
    assert made.command("llama-server").is_file()
    assert any(s.phase == "compile" and s.total for s in states)
    assert "llama-cpp-python 0.3.36" in made.detail


@needs_tools
def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(small_wheels.CMAKE, "utf-8")
    (source / "main.cpp").write_text('#include "no_such_header.h"\n', "utf-8")
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        with pytest.raises(EngineError) as failed:
            native.compile_server(source, tmp_path / "build", tmp_path, log, quiet)
    assert "no_such_header.h" in failed.value.found and log.name in failed.value.hint


def test_no_compiler(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineError) as failed:
        install("llama.cpp", None, "native", settings=settings)
    assert "no C++ compiler" in failed.value.found and "apt install g++" in failed.value.hint
    monkeypatch.setenv("CXX", "no-such-compiler --flag")
    with pytest.raises(EngineError) as failed:
        install("llama.cpp", None, "native", settings=settings)
    assert "no-such-compiler" in failed.value.found


def test_its_version_is_not_for_the_user_to_choose(settings: Settings) -> None:
    with pytest.raises(UsageError):
        install("llama.cpp", "1.2.3", "native", settings=settings)


def test_sources_are_unpacked_where_they_belong(tmp_path: Path) -> None:
    evil = small_wheels.archive(
        tmp_path / "a.tar.gz", {"x/vendor/llama.cpp/../../../../evil": "x", "../evil2": "x"}
    )
    with pytest.raises(InvalidFile):
        native.unpack(evil, tmp_path / "target" / "deep")
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08" + b"\0" * 40])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(data)
    with pytest.raises(InvalidFile):
        native.unpack(path, tmp_path / "target")


def test_an_archive_without_the_sources(tmp_path: Path) -> None:
    path = small_wheels.archive(tmp_path / "a.tar.gz", {"x/README": "moved"})
    with pytest.raises(InvalidFile) as refused:
        native.unpack(path, tmp_path / "target")
    assert "vendor/llama.cpp" in refused.value.found


def test_ninja_and_make_are_counted() -> None:
    states: list[State] = []
    count = native.counter(states.append)
    for line in ("[12/76] Building CXX object src/a.cpp.o", "[ 42%] Building", "-- Found OpenMP"):
        count(line)
    assert [(s.done, s.total) for s in states] == [(12, 76), (42, 100)]
