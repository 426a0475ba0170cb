"""The conversion engine: many readers and encoders, bounded memory, resumable.

Threads take runs of rows of a matrix, read them, check them, encode them and write each piece at
its final place. So no matrix is ever held whole, and the bytes depend neither on the number of
threads nor on the order of work. Rows that the target stores as the source does are copied; those
that a fast quantiser takes as they are stored are handed to it; numbers that only change their
packing keep their values; all others go by way of float32.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.artifacts.digests import Digests
from qwharf.artifacts.encoders import GgmlEncoder, encode_stored
from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.output import Output, Unit
from qwharf.artifacts.partial import Partial, making
from qwharf.artifacts.positioned import Files, write_columns, write_rows
from qwharf.artifacts.repacking import Repacker
from qwharf.artifacts.soundness import check_made, check_stored, check_values, senseless
from qwharf.formats.weights.ggml import dequantize
from qwharf.quantize import ggml

if TYPE_CHECKING:
    from numpy.typing import NDArray

Step = Callable[[int, int, str], None]
"""Progress: ``(done_bytes, total_bytes, tensor)``, called in the caller's thread."""

MEMORY_BYTES = 10**9
"""Default for all that the process holds."""
BASE_BYTES = 150 * 10**6
"""What it holds before the first weight is read: interpreter, libraries, headers, vocabulary."""
BYTES_PER_ELEMENT = 40
"""What an element in work takes at most: its float32 and the copies that encoders make of it."""
CHUNK_ELEMENTS = 1 << 20
"""Elements in work per thread, at most: 4 MiB as float32, which stays within a core's cache."""
WIDE_ELEMENTS = 8 << 20
"""The same where rows become columns: each row of the target is a write, and should be long."""
FLUSH_BYTES = 64 << 20
FLUSH_SECONDS = 5.0
PROGRESS_SECONDS = 0.25
"""At least this often a long tensor shows how far it is."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has done."""

    resumed: int
    """Units that an earlier run had finished already."""
    sha256: Mapping[str, str]
    """Of each weight file, if that was asked for."""


def run(
    output: Output,
    *,
    threads: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    progress: Step | None = None,
    resume: bool = True,
    digest: bool = False,
) -> Done:
    """Make ``output``; ``digest``: with the sha256 of its weight files, at no time of its own.

    Fewer threads work where ``memory_bytes`` does not allow for all; one always does, and holds
    the shortest run of rows that can be encoded: some 130 MB for the widest matrices.

    Raises:
        InvalidFile: a source is shorter than its header says, or holds values that are not finite
            or beyond the target's range; names the tensor. Nothing is kept.
        StorageError: no space, no permission. What is finished is kept for the next run.
        Conflict: something of that name exists, or another process is making it.
    """
    with contextlib.ExitStack() as stack:
        partial = stack.enter_context(making(output, resume=resume))
        digests = stack.enter_context(Digests(partial)) if digest else None
        _Job(partial, threads or usable_cores(), memory_bytes, progress, digests).run()
        return Done(len(partial.done), digests.result() if digests else {})


def usable_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class _Chunk:
    unit: int
    piece: int
    first: int
    """First row within the piece."""
    rows: int
    at: int
    """First row within the unit."""


class _Job:
    """One run: threads that encode, and the caller's thread that keeps the books."""

    def __init__(
        self,
        partial: Partial,
        threads: int,
        memory_bytes: int,
        progress: Step | None,
        digests: Digests | None,
    ) -> None:
        self.partial = partial
        self.digests = digests
        self.units = partial.output.units
        self.todo = [i for i in range(len(self.units)) if i not in partial.done]
        budget = max(0, memory_bytes - BASE_BYTES) // BYTES_PER_ELEMENT
        least = max((_least_elements(self.units[i]) for i in self.todo), default=1)
        self.threads = max(1, min(threads, budget // least))
        self.budget_elements = budget // self.threads
        self.progress = progress
        self.files = Files()
        self.finished: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.left: dict[int, int] = {}
        self.written = sum(self.units[i].size_bytes for i in partial.done)
        self.current = ""

    def run(self) -> None:
        """Do all that is left."""
        ggml.prepare(
            (u.encoders[0].kind, u.elements)
            for u in (self.units[i] for i in self.todo)
            if isinstance(u.encoders[0], GgmlEncoder)
        )
        self.left = {i: sum(1 for _ in self._chunks_of(i)) for i in self.todo}
        chunks, ahead = (self._chunks() for _ in range(2))
        self._expect(*itertools.islice(ahead, self.threads + 1))
        workers = [
            threading.Thread(target=self._work, args=(chunks, ahead), name=f"encode-{n}")
            for n in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        notes = _Notes(self.partial)
        failure: BaseException | None = None
        try:
            failure = self._keep_books(notes)
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()
            self.files.close()
            with contextlib.suppress(OSError) if failure else contextlib.nullcontext():
                notes.flush()
        if failure is not None:
            raise failure

    def _keep_books(self, notes: _Notes) -> BaseException | None:
        """Note what is finished until all threads have ended; the first error."""
        total = sum(u.size_bytes for u in self.units)
        alive, failure = self.threads, None
        while alive:
            try:
                event = self.finished.get(timeout=PROGRESS_SECONDS)
            except queue.Empty:
                pass
            else:
                if isinstance(event, int):
                    if self.digests is not None:
                        self.digests.finished(event)
                    notes.add(event, self.units[event].size_bytes)
                else:
                    alive -= 1
                    failure = failure or event
            if self.progress is not None and failure is None:
                self.progress(self.written, total, self.current)
        return failure

    def _chunks(self) -> Iterator[_Chunk]:
        return (c for i in self.todo for c in self._chunks_of(i))

    def _chunks_of(self, index: int) -> Iterator[_Chunk]:
        unit = self.units[index]
        across = any(part.along == "columns" for part, _ in unit.parts)
        most = min(WIDE_ELEMENTS if across else CHUNK_ELEMENTS, self.budget_elements)
        at = 0
        for number, piece in enumerate(unit.pieces):
            rows, columns = piece.shape
            least = max(piece.step, unit.encoders[number].step)
            step = max(1, most // columns // least) * least
            for first in range(0, rows, step):
                count = min(step, rows - first)
                yield _Chunk(index, number, first, count, at + first)
            at += rows

    def _work(self, chunks: Iterator[_Chunk], ahead: Iterator[_Chunk]) -> None:
        """Convert chunk after chunk; ``ahead`` goes before, so that the disk does, too."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is found and named
                while not self.stop.is_set():
                    with self.lock:
                        chunk, later = next(chunks, None), next(ahead, None)
                    if later is not None:
                        self._expect(later)
                    if chunk is None:
                        break
                    self._convert(chunk)
            self.finished.put(None)
        except BaseException as error:  # to be raised where the caller waits
            self.stop.set()
            self.finished.put(error)

    def _expect(self, *chunks: _Chunk) -> None:
        for chunk in chunks:
            piece = self.units[chunk.unit].pieces[chunk.piece]
            if piece.kind is not None:  # of the others, a run of rows may lie in many places
                self.files.expect(piece.region, chunk.first, chunk.rows)

    def _convert(self, chunk: _Chunk) -> None:
        unit = self.units[chunk.unit]
        written = self._write(unit, chunk, self._encoded(unit, chunk))
        with self.lock:
            self.written += written
            self.current = unit.name
            self.left[chunk.unit] -= 1
            complete = self.left[chunk.unit] == 0
        if complete:
            self.finished.put(chunk.unit)

    def _encoded(self, unit: Unit, chunk: _Chunk) -> Sequence[NDArray[Any]]:
        """The chunk's piece of each of the unit's tensors, checked."""
        matrix, encoder = unit.pieces[chunk.piece], unit.encoders[chunk.piece]
        path = matrix.region.path
        if (kind := matrix.kind) is not None:
            raw = self.files.rows(matrix.region, chunk.first, chunk.rows).reshape(-1).view(np.uint8)
            check_stored(path, unit.name, kind, raw)
            made = encode_stored(encoder, kind, raw, matrix.shape[1])
            if made is not None and made[0] is raw:
                return made
            if made is not None:
                check_made(path, unit, made, lambda: dequantize(kind, raw))
                return made
            values = dequantize(kind, raw).reshape(chunk.rows, -1)
        else:
            try:
                if isinstance(encoder, Repacker):
                    made = encoder.repack(self.files, chunk.first, chunk.rows)
                    check_made(path, unit, made, lambda: self._values(matrix, chunk))
                    return made
                values = self._values(matrix, chunk)
            except ValueError as e:
                raise senseless(path, unit.name, str(e)) from e
            check_values(path, unit.name, values)
        made = encoder.encode(values)
        check_made(path, unit, made, lambda: values)
        return made

    def _values(self, matrix: Matrix, chunk: _Chunk) -> NDArray[np.float32]:
        return matrix.read(self.files, chunk.first, chunk.rows)

    def _write(self, unit: Unit, chunk: _Chunk, made: Sequence[NDArray[Any]]) -> int:
        """Write the pieces; the number of bytes."""
        arrays, written = iter(made), 0
        for part, place in unit.parts:
            handle = self.partial.handles[place.file]
            if part.along == "none":
                if chunk.at > 0 or part.data is None:
                    continue
                array = part.data
                write_rows(handle, place, 0, array)
            else:
                array = next(arrays)
                write = write_rows if part.along == "rows" else write_columns
                write(handle, place, chunk.at // part.unit, array)
            written += array.nbytes
        return written


def _least_elements(unit: Unit) -> int:
    """Elements of the shortest run of rows that can be encoded by itself."""
    return max(
        piece.shape[1] * min(piece.shape[0], max(piece.step, encoder.step))
        for piece, encoder in zip(unit.pieces, unit.encoders, strict=True)
    )


class _Notes:
    """Collects finished units and notes them, many at a time: the disk has to be waited for."""

    def __init__(self, partial: Partial) -> None:
        self.partial = partial
        self.units: list[int] = []
        self.size_bytes = 0
        self.since = time.monotonic()

    def add(self, unit: int, size_bytes: int) -> None:
        self.units.append(unit)
        self.size_bytes += size_bytes
        if self.size_bytes >= FLUSH_BYTES or time.monotonic() - self.since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.units:
            self.partial.note(self.units)
        self.units, self.size_bytes, self.since = [], 0, time.monotonic()
