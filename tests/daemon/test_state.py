"""What the daemon remembers survives anything, and says clearly when it cannot be used."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from stand_in_platform import wish

from qwharf.daemon.state import KEPT_REPORTS, SCHEMA_VERSION, Row, State
from qwharf.errors import InvalidFile, StorageError
from qwharf.types import Check, DeploymentSpec, Report

NAMES = st.sampled_from(["a", "b", "ü-模型", "d"])


def spec_of(name: str, context: int = 1024) -> DeploymentSpec:
    with tempfile.TemporaryDirectory() as folder:
        return replace(wish(Path(folder)), name=name, context_tokens=context)


def report_of(name: str, number: int, status: str = "pass") -> Report:
    check = Check(
        id="x",
        title="",
        status=status,
        expected="",
        found=str(number),
        meaning="",  # type: ignore[arg-type]
    )
    return Report(
        deployment=name,
        base_url="",
        model="m",
        thinking="hybrid",
        checks=(check,),
        created_at=float(number),
        spec=spec_of(name),
    )


class Remembering(RuleBasedStateMachine):
    """Any sequence of operations, with the database closed and opened anywhere in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.state = State(self.folder / "state.db")
        self.rows: dict[str, Row] = {}
        self.reports: dict[str, list[Report]] = {}
        self.events: list[tuple[str, str]] = []
        self.clock = 0

    @rule(
        name=NAMES,
        context=st.integers(1, 2**40),
        wanted=st.sampled_from(["running", "failed", "removed"]),
        detail=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        verified=st.sampled_from([None, "pass", "fail"]),
        pid=st.none() | st.integers(1, 2**31),
    )
    def put(self, name: str, context: int, **more: object) -> None:
        self.clock += 1
        created = self.rows[name].created_at if name in self.rows else float(self.clock)
        row = Row(spec=spec_of(name, context), created_at=created, engine="e 1", **more)  # type: ignore[arg-type]
        self.state.put(row)
        self.rows[name] = row

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        self.state.forget(name)
        self.rows.pop(name, None)

    @rule(name=NAMES, times=st.sampled_from([1, KEPT_REPORTS]))
    def add_reports(self, name: str, times: int) -> None:
        for _ in range(times):
            self.clock += 1
            report = report_of(name, self.clock)
            self.state.add_report(name, report)
            self.reports[name] = [report, *self.reports.get(name, [])][:KEPT_REPORTS]

    @rule(name=NAMES, text=st.text(st.characters(exclude_categories=["Cs"])))
    def add_event(self, name: str, text: str) -> None:
        self.state.add_event(name, "kind", text)
        self.events.insert(0, (name, text))

    @rule()
    def reopen(self) -> None:
        self.state.close()
        self.state = State(self.folder / "state.db")

    @rule()
    def lose_power(self) -> None:
        """The files as they are now, as a killed process leaves them."""
        copy = Path(tempfile.mkdtemp())
        shutil.copytree(self.folder, copy, dirs_exist_ok=True)
        self.state.close()
        shutil.rmtree(self.folder)
        self.folder = copy
        self.state = State(copy / "state.db")

    @invariant()
    def all_is_there(self) -> None:
        rows, strange = self.state.rows()
        assert not strange
        assert rows == sorted(self.rows.values(), key=lambda r: r.created_at)
        for name, reports in self.reports.items():
            assert self.state.reports(name) == reports
        assert [(e.name, e.text) for e in self.state.events(limit=5)] == self.events[:5]

    def teardown(self) -> None:
        self.state.close()
        shutil.rmtree(self.folder)


Remembering.TestCase.settings = hypothesis_settings(
    max_examples=8, stateful_step_count=15, deadline=None
)
TestRemembering = Remembering.TestCase


def test_a_writer_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    code = (
        "import sys\nfrom qwharf.daemon.state import State\n"
        "s = State(__import__('pathlib').Path(sys.argv[1]))\n"
        "n = len(s.events(limit=2000))\n"
        "while True:\n"
        "    s.add_event('x', 'k', str(n)); n += 1\n"
        "    sys.stdout.write(f'{n}\\n'); sys.stdout.flush()\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(40):
                said = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            said = max([said, *(int(x) for x in writer.stdout if x.endswith("\n"))])
        state = State(path)
        kept = [int(e.text) for e in state.events(limit=2000)]
        state.close()
        assert len(kept) >= min(said, 2000), "what was committed is there"
        assert kept == list(range(kept[0], kept[-1] - 1, -1))


def damage_header(path: Path) -> None:
    path.write_bytes(b"garbage" + path.read_bytes()[7:])


def damage_pages(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * 2000 + data[2100:4096] + b"\x07" * (len(data) - 4096))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()


def of_another_program(path: Path) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (damage_header, "damaged"),
        (damage_pages, "damaged"),
        (truncate, "damaged"),
        (newer, "newer qwharf"),
        (of_another_program, "another program"),
    ],
)
def test_a_database_that_cannot_be_used_is_left_alone(
    harm: object, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    state = State(path)
    for n in range(50):
        state.put(Row(spec=spec_of(f"n{n}"), wanted="running", created_at=1.0))
    state.close()
    harm(path)  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(InvalidFile, match=words) as e:
        State(path)
    assert str(path) in e.value.hint
    assert "away" in e.value.hint
    assert path.read_bytes() == before


def test_an_empty_file_is_a_fresh_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    state = State(path)
    assert state.rows() == ([], {})
    state.close()


def test_a_row_of_another_shape_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    state = State(path)
    good = Row(spec=spec_of("good"), wanted="running", created_at=1.0)
    state.put(good)
    state.put(Row(spec=spec_of("odd"), wanted="running", created_at=2.0))
    state.add_report("odd", report_of("odd", 1))
    state.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE deployments SET spec = '{\"from_the_future\": 1}' WHERE name = 'odd'")
    db.execute("UPDATE reports SET report = 'no JSON'")
    db.commit()
    db.close()
    state = State(path)
    rows, strange = state.rows()
    assert rows == [good]
    assert list(strange) == ["odd"]
    assert state.reports("odd") == []
    state.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as e:
        State(tmp_path / "file" / "state.db")
    assert "QWHARF_HOME" in e.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        State(tmp_path / "folder")


def test_a_full_disk_is_told_and_passes(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    pages = state._one("PRAGMA page_count")
    state._db.execute(f"PRAGMA max_page_count = {pages}")
    row = Row(spec=spec_of("a"), wanted="running", created_at=1.0, detail="x" * 100_000)
    with pytest.raises(StorageError, match="full"):
        state.put(row)
    assert state.rows() == ([], {})
    state._db.execute("PRAGMA max_page_count = 100000")
    state.put(row)
    assert state.rows() == ([row], {})
    state.close()
