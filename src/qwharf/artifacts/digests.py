"""The sha256 of files that are written out of order, computed while they are written.

The bytes of a file are final up to its first unfinished tensor. They are read back as they become
final, when the system still has them in memory, by a thread of their own: reading a large file
again when all is done would take the disk as long as writing it.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Set
from types import TracebackType

from qwharf.artifacts.partial import Partial
from qwharf.artifacts.positioned import read_at

PIECE_BYTES = 1 << 20


class Digests:
    """Of all weight files of an unfinished output; as a context, which its thread ends with."""

    def __init__(self, partial: Partial) -> None:
        output = partial.output
        starts: list[list[tuple[int, int]]] = [[] for _ in output.files]
        for number, unit in enumerate(output.units):
            for _, place in unit.parts:
                starts[place.file].append((place.offset, number))
        self._files = {
            file.name: _Followed(handle, file.size_bytes, sorted(starts[n]))
            for n, (file, handle) in enumerate(zip(output.files, partial.handles, strict=True))
        }
        self._done = set(partial.done)
        self._finished: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._failure: OSError | None = None
        self._abandoned = False
        self._thread = threading.Thread(target=self._follow, name="digest")

    def __enter__(self) -> Digests:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._abandoned = error is not None
        self._finished.put(None)
        self._thread.join()

    def finished(self, unit: int) -> None:
        """The bytes of a unit are all written."""
        self._finished.put(unit)

    def result(self) -> dict[str, str]:
        """In hex, by the name of the file; when all units are finished.

        Raises:
            OSError: the file could not be read back.
        """
        self._finished.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return {name: file.digest.hexdigest() for name, file in self._files.items()}

    def _follow(self) -> None:
        buffer = memoryview(bytearray(PIECE_BYTES))
        try:
            while not self._abandoned:
                for file in self._files.values():
                    file.advance(self._done, buffer)
                if (unit := self._finished.get()) is None:
                    break
                self._done.add(unit)
        except OSError as error:  # to be raised where the caller waits
            self._failure = error


class _Followed:
    def __init__(self, handle: int, size_bytes: int, starts: list[tuple[int, int]]) -> None:
        self.digest = hashlib.sha256()
        self._handle = handle
        self._size_bytes = size_bytes
        self._starts = starts
        """Where each tensor begins, and its unit; in order."""
        self._next = 0
        """The first that is not known to be finished."""
        self._at = 0

    def advance(self, done: Set[int], buffer: memoryview) -> None:
        """Read what has become final, in long pieces."""
        while self._next < len(self._starts) and self._starts[self._next][1] in done:
            self._next += 1
        whole = self._next == len(self._starts)
        end = self._size_bytes if whole else self._starts[self._next][0]
        while self._at < end and (whole or end - self._at >= len(buffer)):
            count = read_at(self._handle, buffer[: end - self._at], self._at)
            if count == 0:
                raise OSError(f"the file ends at byte {self._at:,} of {self._size_bytes:,}")
            self.digest.update(buffer[:count])
            self._at += count
