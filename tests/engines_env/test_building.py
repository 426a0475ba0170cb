"""A version's folder appears whole or not at all, whoever else is at it and whoever dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from qwharf import engines
from qwharf.engines.building import Fill, Order, clean, leftovers, make, remove
from qwharf.engines.installed import MANIFEST, Installed, home, version_key
from qwharf.engines.progress import State, quiet
from qwharf.errors import Conflict, EngineError, StorageError, UsageError
from qwharf.settings import Settings

NATIVE = Order(engine="llama.cpp", version="native", variant="native", disk_bytes=1)
SERVER = "#!/bin/sh\necho 'version: 1 (fake)'\n"


def fill(folder: Path, log: TextIO) -> dict[str, Any]:
    """The least that passes for a compiled engine."""
    (folder / "bin").mkdir()
    (folder / "bin/llama-server").write_text(SERVER, "utf-8")
    (folder / "bin/llama-server").chmod(0o755)
    return {"compiled": True, "detail": "fake"}


def folders(settings: Settings) -> list[str]:
    return sorted(p.name for p in (settings.data_dir / "engines/llama.cpp").iterdir())


def test_it_is_found_when_it_is_made(settings: Settings) -> None:
    assert engines.find("llama.cpp", settings=settings) is None
    states: list[State] = []
    made = make(NATIVE, fill, settings, states.append)
    assert made == engines.find("llama.cpp", "native", settings)
    assert made.folder == home("llama.cpp", "native", settings)
    assert made.command("llama-server").is_file() and not made.problems
    assert folders(settings) == [".locks", "native"]
    manifest = json.loads((made.folder / MANIFEST).read_text("utf-8"))
    assert manifest["engine_version"] == "1 (fake)"
    assert manifest["size_bytes"] == len(SERVER)
    assert states[-1].phase == "check"


def test_a_second_time_it_is_only_found(settings: Settings) -> None:
    def must_not(folder: Path, log: TextIO) -> dict[str, Any]:
        raise AssertionError("made twice")

    made = make(NATIVE, fill, settings, quiet)
    assert make(NATIVE, must_not, settings, quiet) == made
    with pytest.raises(AssertionError):
        make(replace(NATIVE, again=True), must_not, settings, quiet)
    assert (
        engines.find("llama.cpp", settings=settings) == made
    )  # a failed replacement harms nothing
    assert folders(settings) == [".locks", "native"]


def test_another_kind_under_one_name_is_a_conflict(settings: Settings) -> None:
    make(NATIVE, fill, settings, quiet)
    other = replace(NATIVE, variant="cuda")
    with pytest.raises(Conflict) as refused:
        make(other, fill, settings, quiet)
    assert "--again" in refused.value.hint
    assert make(replace(NATIVE, again=True), fill, settings, quiet).variant == "native"


def without_server(folder: Path, log: TextIO) -> dict[str, Any]:
    return {"compiled": True}


def failing(folder: Path, log: TextIO) -> dict[str, Any]:
    (folder / "bin").mkdir()
    (folder / "bin/llama-server").write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    (folder / "bin/llama-server").chmod(0o755)
    return {"compiled": True}


@pytest.mark.parametrize(("wrong", "says"), [(without_server, "not there"), (failing, "no such")])
def test_what_does_not_work_does_not_appear(settings: Settings, wrong: Fill, says: str) -> None:
    with pytest.raises(EngineError) as failed:
        make(NATIVE, wrong, settings, quiet)
    assert says in failed.value.found
    log = Path(failed.value.hint.rpartition(" ")[2])
    assert log.is_file() and says in log.read_text("utf-8")
    assert folders(settings) == [".locks"]


def test_a_full_disk(settings: Settings) -> None:
    def full(folder: Path, log: TextIO) -> dict[str, Any]:
        raise OSError(28, "No space left on device", str(folder / "x"))

    with pytest.raises(StorageError) as failed:
        make(NATIVE, full, settings, quiet)
    assert "free some space" in failed.value.hint
    assert folders(settings) == [".locks"]
    with pytest.raises(StorageError) as refused:
        make(replace(NATIVE, disk_bytes=2**60), fill, settings, quiet)
    assert "free in" in refused.value.found


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be", "utf-8")
    settings = Settings(data_dir=tmp_path / "data", state_dir=tmp_path / "state")
    with pytest.raises(StorageError) as failed:
        make(NATIVE, fill, settings, quiet)
    assert "QWHARF_HOME" in failed.value.hint


def test_two_at_once_make_one(settings: Settings) -> None:
    started, go_on = threading.Event(), threading.Event()
    calls: list[Path] = []

    def slow(folder: Path, log: TextIO) -> dict[str, Any]:
        calls.append(folder)
        started.set()
        go_on.wait(30)
        return fill(folder, log)

    made: list[Installed] = []
    states: list[State] = []
    first = threading.Thread(target=lambda: made.append(make(NATIVE, slow, settings, quiet)))
    second = threading.Thread(
        target=lambda: made.append(make(NATIVE, slow, settings, states.append))
    )
    first.start()
    assert started.wait(30)
    assert leftovers(settings) == ()  # it is under way, not left
    second.start()
    while not states:
        time.sleep(0.01)
    go_on.set()
    first.join(30)
    second.join(30)
    assert len(calls) == 1 and len(made) == 2 and made[0] == made[1]
    assert [s.phase for s in states] == ["wait"]


KILLED = """
import sys, time
from pathlib import Path
from qwharf.engines.building import Order, make
from qwharf.engines.progress import quiet
from qwharf.settings import Settings
home = Path(sys.argv[1])
def fill(folder, log):
    (folder / "half").write_text("x" * 1000)
    print("half", flush=True)
    time.sleep(60)
order = Order(engine="llama.cpp", version="native", variant="native", disk_bytes=1)
make(order, fill, Settings(data_dir=home / "data", state_dir=home / "state"), quiet)
"""


@pytest.fixture
def killed(settings: Settings) -> Iterator[Settings]:
    """A home in which an installation was killed half-way."""
    place = settings.data_dir.parent
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        with pytest.raises(Conflict):
            remove(replace(_any(settings), version="native"), settings)
        child.send_signal(signal.SIGKILL)
    yield settings


def _any(settings: Settings) -> Installed:
    return Installed(
        engine="llama.cpp",
        version="native",
        folder=home("llama.cpp", "native", settings),
        python=Path(sys.executable),
        bin=Path("/"),
        source="qwharf",
        variant="native",
    )


def test_a_killed_installation_is_none(killed: Settings) -> None:
    assert engines.find("llama.cpp", settings=killed) is None
    assert [p.name for p in leftovers(killed)] == [".building-native"]
    assert not make(NATIVE, fill, killed, quiet).problems
    assert folders(killed) == [".locks", "native"]


def test_what_it_left_can_be_removed(killed: Settings) -> None:
    assert clean(killed) == ("llama.cpp/.building-native",)
    assert folders(killed) == [".locks"]


ORPHAN = KILLED.replace(
    "time.sleep(60)",
    "from qwharf.engines.running import run; "
    "run(['/bin/sh', '-c', 'echo $$; exec sleep 60'], on_line=lambda x: print(x, flush=True))",
)


def test_what_it_started_keeps_the_lock(settings: Settings) -> None:
    """Pip goes on for a while when we are killed: nobody may take its folder away."""
    place = settings.data_dir.parent
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(place)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        orphan = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    assert leftovers(settings) == ()
    os.kill(orphan, signal.SIGKILL)
    while not leftovers(settings):
        time.sleep(0.01)
    assert clean(settings) == ("llama.cpp/.building-native",)


def test_an_interrupted_one_leaves_nothing(settings: Settings) -> None:
    def interrupted(folder: Path, log: TextIO) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(NATIVE, interrupted, settings, quiet)
    assert folders(settings) == [".locks"]


def test_removing(settings: Settings) -> None:
    made = make(NATIVE, fill, settings, quiet)
    assert remove(made, settings) >= len(SERVER)
    assert engines.find("llama.cpp", settings=settings) is None
    with pytest.raises(UsageError):
        remove(replace(made, source="system"), settings)


def test_a_removal_that_was_killed_leaves_no_engine(settings: Settings) -> None:
    made = make(NATIVE, fill, settings, quiet)
    made.folder.rename(made.folder.with_name(".removing-native"))
    assert engines.find("llama.cpp", settings=settings) is None
    assert clean(settings) == ("llama.cpp/.removing-native",)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"schema": 99}', '"x"', "\x00"])
def test_a_broken_manifest_is_a_problem_not_a_crash(settings: Settings, manifest: str) -> None:
    made = make(NATIVE, fill, settings, quiet)
    (made.folder / MANIFEST).write_text(manifest, "utf-8")
    found = engines.find("llama.cpp", settings=settings)
    assert found is not None and "qwharf engine rm llama.cpp==native" in found.problems[0]
    assert not make(NATIVE, fill, settings, quiet).problems  # and installing mends it


def test_an_environment_whose_python_is_gone(settings: Settings) -> None:
    place = home("mlx", "0.32.2", settings)
    (place / "env/bin").mkdir(parents=True)
    (place / "env/bin/python").symlink_to("/nowhere/python3.11")
    told = {"schema": 1, "engine": "mlx", "version": "0.32.2", "variant": "cpu"}
    (place / MANIFEST).write_text(json.dumps(told), "utf-8")
    found = engines.find("mlx", "0.32.2", settings)
    assert found is not None and "/nowhere/python3.11" in found.problems[0]


def test_the_newest_version_without_problems_is_taken(settings: Settings) -> None:
    for version in ("0.9.0", "0.32.0", "0.32.0rc1", "0.32.1"):
        place = home("vllm", version, settings)
        (place / "env/bin").mkdir(parents=True)
        target = "/nowhere" if version == "0.32.1" else sys.executable
        (place / "env/bin/python").symlink_to(target)
        told = {"schema": 1, "engine": "vllm", "version": version, "variant": "cpu"}
        (place / MANIFEST).write_text(json.dumps(told), "utf-8")
    found = engines.find("vllm", settings=settings)
    assert found is not None and found.version == "0.32.0"
    listed = [x.version for x in engines.installed("vllm", settings) if x.source == "qwharf"]
    assert listed == ["0.32.1", "0.32.0", "0.32.0rc1", "0.9.0"]
    broken = engines.find("vllm", "0.32.1", settings)
    assert broken is not None and broken.problems


def test_versions_are_sorted_as_numbers() -> None:
    ordered = ["native", "0.5.9", "0.5.15rc1", "0.5.15", "0.5.15.post1", "0.5.15.1", "0.10"]
    shuffled = [ordered[i] for i in (3, 0, 6, 2, 5, 1, 4)]
    assert sorted(shuffled, key=version_key) == ordered
    assert version_key("0.32.0+cpu") == version_key("0.32.0")


def test_folders_without_a_manifest_are_nothing(settings: Settings) -> None:
    (settings.data_dir / "engines/vllm/0.32.0/env").mkdir(parents=True)
    assert engines.installed("vllm", settings) == ()
