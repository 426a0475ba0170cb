"""The conversion engine: many readers and encoders, one output file, bounded memory, resumable.

Every output tensor is a list of pieces, each a contiguous run of rows somewhere in a source file.
Threads take runs of rows, read them into their own small buffers, check them, encode them and
write them at their final place, so no tensor is ever held whole, and the bytes do not depend on
the number of threads or on the order of work.

What is finished is noted in a journal beside the unfinished file (``NAME.partial`` and
``NAME.partial.journal``), after the data has reached the disk. A run that finds both, made from
the same plan, goes on from there. The file gets its name when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwharf.artifacts.disk import fsync_folder, require_space, storage_errors
from qwharf.artifacts.journal import Journal
from qwharf.artifacts.locks import FileLock
from qwharf.errors import Conflict, InvalidFile, StorageError
from qwharf.formats.ggml_types import GgmlType
from qwharf.quantize import ggml

if TYPE_CHECKING:
    from numpy.typing import NDArray

Step = Callable[[int, int, str], None]
"""Progress: ``(done_bytes, total_bytes, tensor)``, called in the caller's thread."""

FLUSH_BYTES = 256 << 20
FLUSH_SECONDS = 5.0
PROGRESS_SECONDS = 0.25
"""At least this often a long tensor shows how far it is."""
JOURNAL_VERSION = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """``rows`` rows that lie together in a source file, from byte ``offset`` on."""

    path: Path
    offset: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One output tensor."""

    name: str
    columns: int
    """Elements of a row, the last dimension in torch's order."""
    source: GgmlType
    target: GgmlType
    pieces: tuple[Piece, ...]
    offset: int
    """Where the tensor starts in the output file."""

    @property
    def rows(self) -> int:
        """Rows of all pieces."""
        return sum(p.rows for p in self.pieces)

    @property
    def elements(self) -> int:
        """Weights of the tensor."""
        return self.rows * self.columns

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in the output."""
        return self.rows * self.target.size_bytes(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file to write: its header, then the tensors, in any order."""

    path: Path
    header: bytes
    jobs: tuple[Job, ...]
    size_bytes: int
    identity: str
    """What the result depends on beyond header and layout: sources, versions."""

    @property
    def partial(self) -> Path:
        """The file while it is unfinished."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def journal(self) -> Path:
        """What is finished in ``partial``."""
        return self.path.with_name(self.path.name + ".partial.journal")

    def digest(self) -> str:
        """Identifies the plan: two runs with the same digest write the same bytes."""
        layout = [
            [j.name, j.columns, j.source.name, j.target.name, j.offset]
            + [[str(p.path), p.offset, p.rows] for p in j.pieces]
            for j in self.jobs
        ]
        text = json.dumps([JOURNAL_VERSION, self.identity, self.size_bytes, layout])
        return hashlib.sha256(self.header + text.encode()).hexdigest()


# ----------------------------------------------------------------------------------------- run


@dataclass(frozen=True, slots=True)
class _Chunk:
    job: int
    piece: Piece
    first: int
    """First row within the piece."""
    rows: int
    at: int
    """Where the rows go in the output file."""


def run(
    output: Output,
    *,
    threads: int | None = None,
    progress: Step | None = None,
    resume: bool = True,
) -> int:
    """Write ``output``; the number of tensors that an earlier run had finished already.

    Raises:
        InvalidFile: a source is shorter than its header says, or holds values that are not
            finite; names the tensor. Nothing is kept.
        StorageError: no space, no permission. What is finished is kept for the next run.
        Conflict: another process is writing the same file.
    """
    folder = output.path.parent
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if output.path.is_dir():
            raise StorageError(
                str(output.path), found="a folder", expected="a file to write", hint="name a file"
            )
        lock = FileLock(output.path.with_name(output.path.name + ".partial.lock"))
        if not lock.try_acquire():
            raise Conflict(
                str(output.path),
                found="another process that writes it",
                hint="wait for it to finish, or choose another output path",
            )
        try:
            return _run(output, threads or usable_cores(), progress, resume)
        finally:
            lock.release(delete=True)


def usable_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _run(output: Output, threads: int, progress: Step | None, resume: bool) -> int:
    journal = Journal(output.journal, output.digest(), len(output.jobs))
    done = journal.read() if resume and _size(output.partial) == output.size_bytes else frozenset()
    if not done:
        # The journal first: it must never vouch for a file that was begun anew.
        output.journal.unlink(missing_ok=True)
        output.partial.unlink(missing_ok=True)
        fsync_folder(output.path.parent)
    held = output.partial.stat().st_blocks * 512 if done and os.name != "nt" else 0
    require_space(output.path.parent, max(0, output.size_bytes - held), subject=str(output.path))
    handle = os.open(output.partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        os.ftruncate(handle, output.size_bytes)
        _write(handle, memoryview(output.header), 0)
        os.fsync(handle)
        journal.start(done)
        try:
            _encode(output, handle, threads, done, journal, progress)
        except InvalidFile:
            os.close(handle)
            handle = -1
            output.journal.unlink(missing_ok=True)
            output.partial.unlink(missing_ok=True)
            raise
        os.fsync(handle)
    finally:
        if handle >= 0:
            os.close(handle)
    output.partial.replace(output.path)
    fsync_folder(output.path.parent)
    output.journal.unlink(missing_ok=True)
    return len(done)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _encode(
    output: Output,
    handle: int,
    threads: int,
    done: frozenset[int],
    journal: Journal,
    progress: Step | None,
) -> None:
    """Start the threads, note what they finish, and hand on the first error."""
    finished: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()
    todo = [i for i in range(len(output.jobs)) if i not in done]
    ggml.prepare((output.jobs[i].target, output.jobs[i].elements) for i in todo)
    left = {i: sum(1 for _ in _chunks_of(i, output.jobs[i])) for i in todo}
    total = sum(j.size_bytes for j in output.jobs)
    state = _State(sum(output.jobs[i].size_bytes for i in done))
    chunks = (c for i in todo for c in _chunks_of(i, output.jobs[i]))
    lock = threading.Lock()

    def work() -> None:
        try:
            with _Worker(output, handle) as worker:
                while not stop.is_set():
                    with lock:
                        chunk = next(chunks, None)
                    if chunk is None:
                        break
                    worker.convert(chunk)
                    job = output.jobs[chunk.job]
                    with lock:
                        state.written += chunk.rows * job.target.size_bytes(job.columns)
                        state.tensor = job.name
                        left[chunk.job] -= 1
                        complete = left[chunk.job] == 0
                    if complete:
                        finished.put(chunk.job)
            finished.put(None)
        except BaseException as error:  # to be raised where the caller waits
            stop.set()
            finished.put(error)

    workers = [threading.Thread(target=work, name=f"encode-{n}") for n in range(threads)]
    notes = _Notes(handle, journal)
    for worker in workers:
        worker.start()
    alive = len(workers)
    failure: BaseException | None = None
    try:
        while alive:
            try:
                event = finished.get(timeout=PROGRESS_SECONDS)
            except queue.Empty:
                pass
            else:
                if isinstance(event, int):
                    notes.add(event, output.jobs[event].size_bytes)
                else:
                    alive -= 1
                    failure = failure or event
            if progress is not None and failure is None:
                progress(state.written, total, state.tensor)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        with contextlib.suppress(OSError) if failure else contextlib.nullcontext():
            notes.flush()
    if failure is not None:
        raise failure


@dataclass(slots=True)
class _State:
    """How far the threads are."""

    written: int
    tensor: str = ""


class _Notes:
    """Collects finished tensors and notes them once their bytes are on the disk."""

    def __init__(self, handle: int, journal: Journal) -> None:
        self.handle = handle
        self.journal = journal
        self.indices: list[int] = []
        self.size_bytes = 0
        self.since = time.monotonic()

    def add(self, index: int, size_bytes: int) -> None:
        self.indices.append(index)
        self.size_bytes += size_bytes
        if self.size_bytes >= FLUSH_BYTES or time.monotonic() - self.since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self.indices:
            os.fsync(self.handle)
            self.journal.add(self.indices)
        self.indices, self.size_bytes, self.since = [], 0, time.monotonic()


def _chunks_of(index: int, job: Job) -> Iterator[_Chunk]:
    step = max(1, ggml.CHUNK_ELEMENTS // job.columns)
    at = job.offset
    size = job.target.size_bytes(job.columns)
    for piece in job.pieces:
        for first in range(0, piece.rows, step):
            rows = min(step, piece.rows - first)
            yield _Chunk(index, piece, first, rows, at)
            at += rows * size


class _Worker:
    """One thread's buffers and open source files."""

    def __init__(self, output: Output, handle: int) -> None:
        self.jobs = output.jobs
        self.handle = handle
        self.files: dict[Path, int] = {}
        self.raw = np.empty(0, np.uint8)
        self.wide = np.empty(0, np.float32)
        self.made = np.empty(0, np.uint8)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.files.values():
            os.close(handle)

    def convert(self, chunk: _Chunk) -> None:
        job = self.jobs[chunk.job]
        size = job.source.size_bytes(job.columns)
        raw = self._read(chunk.piece.path, chunk.piece.offset + chunk.first * size, chunk, size)
        if not ggml.all_finite(job.source.name, raw):
            raise InvalidFile(
                str(chunk.piece.path),
                found=f"an infinite or undefined value (NaN) in the weights of {job.name}",
                expected="finite numbers",
                hint="the checkpoint is damaged or its training diverged; get it again",
                tensor=job.name,
            )
        if job.source.name == job.target.name:
            self._write(raw, chunk.at)
            return
        made = self._made(chunk.rows * job.target.size_bytes(job.columns))
        if not ggml.encode_raw(job.target, job.source.name, raw, job.columns, made):
            rows = self._widen(job, raw).reshape(chunk.rows, job.columns)
            ggml.encode_rows(job.target, rows, made)
        if not self._sound(job.target, made):
            largest = float(np.abs(self._widen(job, raw)).max())
            raise InvalidFile(
                str(chunk.piece.path),
                found=f"weights of {job.name} up to {largest:.3g}",
                expected=f"weights within the range of {job.target.name}",
                hint="convert to gguf:bf16, which holds any of them",
                tensor=job.name,
            )
        self._write(made, chunk.at)

    def _sound(self, target: GgmlType, made: NDArray[np.uint8]) -> bool:
        if target.name in ggml.FLOATS:
            return ggml.all_finite(target.name, made)
        return ggml.library().valid(target, made)

    def _read(self, path: Path, offset: int, chunk: _Chunk, size: int) -> NDArray[np.uint8]:
        wanted = chunk.rows * size
        if self.raw.size < wanted:
            self.raw = np.empty(wanted, np.uint8)
        raw = self.raw[:wanted]
        handle = self.files.get(path)
        if handle is None:
            try:
                handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            except OSError as e:
                raise InvalidFile(
                    str(path), found=e.strerror or str(e), expected="a readable weight file"
                ) from e
            self.files[path] = handle
        view = raw.data
        got = 0
        while got < wanted:
            count = _read_at(handle, view[got:], offset + got)
            if count == 0:
                raise InvalidFile(
                    str(path),
                    found=f"the end of the file at byte {offset + got:,}",
                    expected=f"weights up to byte {offset + wanted:,}",
                    hint="the file is cut short; get it again",
                    tensor=self.jobs[chunk.job].name,
                )
            got += count
        return raw

    def _widen(self, job: Job, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        if job.source.name == "F32":
            return raw.view(np.float32)
        elements = raw.size // job.source.block_bytes
        if self.wide.size < elements:
            self.wide = np.empty(elements, np.float32)
        wide = self.wide[:elements]
        if job.source.name == "BF16":
            return ggml.bf16_to_f32(raw.view(np.uint16), wide)
        wide[...] = raw.view(np.float16)
        return wide

    def _made(self, size: int) -> NDArray[np.uint8]:
        if self.made.size < size:
            self.made = np.empty(size, np.uint8)
        return self.made[:size]

    def _write(self, data: NDArray[np.uint8], at: int) -> None:
        _write(self.handle, data.data, at)


if hasattr(os, "preadv"):

    def _read_at(handle: int, buffer: memoryview, offset: int) -> int:
        return os.preadv(handle, [buffer], offset)

    def _write_at(handle: int, data: memoryview, offset: int) -> int:
        return os.pwrite(handle, data, offset)

else:  # pragma: no cover - Windows: one file position, so one at a time
    _position = threading.Lock()

    def _read_at(handle: int, buffer: memoryview, offset: int) -> int:
        with _position:
            os.lseek(handle, offset, os.SEEK_SET)
            data = os.read(handle, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _write_at(handle: int, data: memoryview, offset: int) -> int:
        with _position:
            os.lseek(handle, offset, os.SEEK_SET)
            return os.write(handle, data)


def _write(handle: int, data: memoryview, at: int) -> None:
    written = 0
    while written < len(data):
        written += _write_at(handle, data[written:], at + written)
