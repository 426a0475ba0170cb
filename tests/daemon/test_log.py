"""Logs of engines: lines whole, files bounded, nothing that harms a terminal."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.daemon import log as log_module
from qwharf.daemon.log import FOLLOWER_LINES, MAX_FILE_BYTES, MAX_LINE_BYTES, EngineLog, prune


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 7))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes], step: int) -> None:
    data = b"\n".join(p.replace(b"\r", b"") for p in pieces) + b"\n"
    whole, parts = EngineLog(Path("/dev/null/x")), EngineLog(Path("/dev/null/x"))
    whole.begin("")
    parts.begin("")
    told = whole.feed(data)
    pieced = [x for i in range(0, len(data), step) for x in parts.feed(data[i : i + step])]
    assert told == pieced == whole.run()
    assert len(told) == data.count(b"\n")
    assert not any(ord(c) < 32 and c != "\t" for line in told for c in line)


def test_colours_and_commands_for_the_terminal_are_taken_out(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    assert log.feed(b"\x1b[31mred\x1b[0m\x07 \x1b]0;title\r\nb\xc3\xbc\xff\n") == [
        "red ]0;title",
        "bü�",
    ]
    log.close()


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    log.begin("begin")
    lines = log.feed(b"x" * (3 * MAX_LINE_BYTES + 5))
    log.end("end")
    assert [len(x) for x in lines] == [MAX_LINE_BYTES] * 3
    assert [len(x) for x in log.run()] == [*[MAX_LINE_BYTES] * 3, 5]
    assert log.tail(1) == ["end"]
    log.close()


def test_files_are_bounded_and_the_tail_spans_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 1000)
    log = EngineLog(tmp_path / "x.log")
    for n in range(500):
        log.feed(b"line %d\n" % n)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ["x.log", "x.log.1"]
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir())
    assert log.tail(120) == [f"line {n}" for n in range(380, 500)]
    assert log.tail(0) == []
    log.close()
    again = EngineLog(tmp_path / "x.log")
    again.feed(b"more\n")
    assert again.tail(2) == ["line 499", "more"]
    again.close()
    assert MAX_FILE_BYTES <= 16 * 2**20


def test_a_disk_that_fails_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = EngineLog(tmp_path / "file" / "x.log")
    assert log.feed(b"a\nb\n") == ["a", "b"]
    assert log.run() == ["a", "b"]
    assert log.tail(5) == []
    log.close()


async def test_a_follower_that_sleeps_misses_lines_but_learns_the_end(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    with log.follow() as coming:
        log.feed(b"x\n" * (FOLLOWER_LINES + 10))
        log.close()
        got = [coming.get_nowait() for _ in range(coming.qsize())]
        with pytest.raises(asyncio.QueueEmpty):
            coming.get_nowait()
    assert len(got) == FOLLOWER_LINES
    assert got[-1] is None


def test_logs_of_what_is_gone_are_kept_for_a_while(tmp_path: Path) -> None:
    for n in range(6):
        log = EngineLog(log_module.path_of(tmp_path, f"n{n}"))
        log.feed(b"x\n")
        log.close()
        os.utime(log.path, (n, n))
    prune(tmp_path, {"n0"}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "engine-n0.log",
        "engine-n4.log",
        "engine-n5.log",
    ]
