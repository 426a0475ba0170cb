"""What an engine says: kept in a file of bounded size, in memory for the run, and followed live."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger("qwharf.daemon")

MAX_FILE_BYTES = 4 * 2**20
"""Then the file becomes ``NAME.log.1``, in place of the one before: at most twice this on disk."""
MAX_LINE_BYTES = 8192
"""A longer line is cut into several."""
HEAD_LINES, TAIL_LINES = 3000, 1000
"""Of one run, kept in memory: what it says of its buffers comes first, of its death last."""
FOLLOWER_LINES = 4000
"""A follower that is further behind misses lines."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def path_of(folder: Path, name: str) -> Path:
    """The log of the deployment ``name``. (The prefix keeps ``con`` and the like possible.)"""
    return folder / f"engine-{name}.log"


class EngineLog:
    """The log of one deployment, over all runs of its engine.

    Never raises for the disk's sake: an engine must not stop because its words cannot be kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._size = 0
        self._broken = False
        self._rest = b""
        self._head: list[str] = []
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._followers: set[asyncio.Queue[str | None]] = set()
        self.received_bytes = 0
        """Of the run; grows while the engine says anything at all."""

    def begin(self, headline: str) -> None:
        """A new run: ``headline`` goes before it."""
        self._head, self.received_bytes = [], 0
        self._tail.clear()
        self._broken = False
        self._emit([headline], remember=False)

    def feed(self, data: bytes) -> list[str]:
        """Take what the engine wrote; the lines that are complete with it."""
        self.received_bytes += len(data)
        *whole, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        while len(self._rest) > MAX_LINE_BYTES:
            whole.append(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        lines = [
            _clean(line[i : i + MAX_LINE_BYTES])
            for line in whole
            for i in range(0, max(len(line), 1), MAX_LINE_BYTES)
        ]
        self._emit(lines)
        return lines

    def end(self, headline: str) -> None:
        """The run is over: what is left of a line counts as one, then ``headline``."""
        if self._rest:
            self._emit([_clean(self._rest)])
            self._rest = b""
        self._emit([headline], remember=False)

    def run(self) -> list[str]:
        """The lines of this run: all, or of a long one its begin and its end."""
        return [*self._head, *self._tail]

    def _emit(self, lines: list[str], *, remember: bool = True) -> None:
        if not lines:
            return
        if remember:
            room = HEAD_LINES - len(self._head)
            self._head += lines[:room]
            self._tail.extend(lines[room:])
        self._write("".join(f"{line}\n" for line in lines).encode("utf-8"))
        for queue in self._followers:
            for line in lines:
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(line)

    def _write(self, data: bytes) -> None:
        if self._broken:
            return
        try:
            if self._size + len(data) > MAX_FILE_BYTES and self._file is not None:
                self._file.close()
                self._file = None
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
                self._size = self._file.tell()
            self._file.write(data)
            self._size += len(data)
        except OSError as e:
            self._broken = True  # until the next run
            logger.warning("%s cannot be written (%s)", self.path, e.strerror)

    def tail(self, lines: int) -> list[str]:
        """The last ``lines`` of what is kept on disk, this run's and earlier ones'."""
        if lines <= 0:
            return []
        found: collections.deque[str] = collections.deque(maxlen=lines)
        for path in (self.path.with_name(self.path.name + ".1"), self.path):
            with (
                contextlib.suppress(OSError),
                path.open(encoding="utf-8", errors="replace") as file,
            ):
                found.extend(line.rstrip("\n") for line in file)
        return list(found)

    @contextlib.contextmanager
    def follow(self) -> Iterator[asyncio.Queue[str | None]]:
        """New lines, as they come; ``None``: there will be no more."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(FOLLOWER_LINES)
        self._followers.add(queue)
        try:
            yield queue
        finally:
            self._followers.discard(queue)

    def close(self) -> None:
        """No more will come: followers are told, the file is closed."""
        for queue in self._followers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        if self._file is not None:
            self._file.close()
            self._file = None


def _clean(line: bytes) -> str:
    """For people and terminals: no colours, no control characters."""
    return _CONTROL.sub("", line.decode("utf-8", "replace")).rstrip()


def prune(folder: Path, names: set[str], keep: int = 10) -> None:
    """Remove the logs of deployments that are gone, but for the newest ``keep``."""
    known = {path_of(folder, name) for name in names}
    with contextlib.suppress(OSError):
        gone = [p for p in folder.glob("engine-*.log") if p not in known]
        gone.sort(key=lambda p: p.stat().st_mtime, reverse=True)
        for path in itertools.islice(gone, keep, None):
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".1").unlink(missing_ok=True)
