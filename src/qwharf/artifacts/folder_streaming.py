"""The conversion engine for folders: any stored matrices to any tensors, in bounded memory.

The sibling of :mod:`qwharf.artifacts.streaming`, which makes GGUF files of unquantised weights.
Here a unit of work is one matrix (or one stack of experts) that becomes one or more tensors in one
of several files. Threads take runs of its rows, read them as float32, encode them and write each
piece at its final place, so that no matrix is ever held whole and the bytes depend neither on the
number of threads nor on the order of work.

All is made in a folder ``NAME.partial``, where a journal notes the finished units after their data
has reached the disk; a run that finds one of the same plan goes on from there. At the end the
folder (or its only file) gets its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.artifacts.disk import fsync_folder, require_space, storage_errors
from qwharf.artifacts.encoders import Encoder, GgmlEncoder, Part, PlainEncoder
from qwharf.artifacts.journal import Journal
from qwharf.artifacts.locks import FileLock
from qwharf.artifacts.matrices import Ggml, Matrix, Plain
from qwharf.artifacts.positioned import Files, Place, write_all, write_columns, write_rows
from qwharf.artifacts.soundness import (
    EXPONENT,
    all_finite,
    not_finite,
    senseless,
    sound,
    too_large,
)
from qwharf.artifacts.streaming import usable_cores
from qwharf.errors import Conflict, InvalidFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

Step = Callable[[int, int, str], None]
"""Progress: ``(done_bytes, total_bytes, tensor)``, called in the caller's thread."""

MEMORY_BYTES = 1 << 30
"""Default budget for what the threads hold at once."""
BYTES_PER_ELEMENT = 40
"""What one element in work takes at most: its float32 and the copies that encoders make of it."""
MOST_ELEMENTS = 1 << 21
FLUSH_BYTES = 256 << 20
FLUSH_SECONDS = 5.0
VERSION = 1
JOURNAL = ".journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One matrix, or matrices stacked, to be stored as one or more tensors."""

    name: str
    pieces: tuple[Matrix, ...]
    encoder: Encoder
    parts: tuple[tuple[Part, Place], ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(place.size_bytes for _, place in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """One file: its header, then tensors at the places that units name."""

    name: str
    header: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutput:
    """What to make."""

    path: Path
    """The folder, or the file where ``single``."""
    files: tuple[OutFile, ...]
    units: tuple[Unit, ...]
    identity: str
    """What the bytes depend on beyond the layout: sources, versions."""
    texts: Mapping[str, bytes]
    """Small files beside the weights."""
    copies: Mapping[str, Path]
    single: bool = False

    @property
    def partial(self) -> Path:
        """Where it lies while it is unfinished."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(f.size_bytes for f in self.files)

    def digest(self) -> str:
        """Identifies the plan: two runs with the same digest write the same bytes."""
        digest = hashlib.sha256(json.dumps([VERSION, self.identity]).encode())
        for file in self.files:
            digest.update(f"{file.name} {file.size_bytes}\n".encode() + file.header)
        for unit in self.units:
            digest.update(repr((unit.name, unit.encoder, unit.pieces)).encode())
        return digest.hexdigest()


def run(
    output: FolderOutput,
    *,
    threads: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    progress: Step | None = None,
    resume: bool = True,
) -> int:
    """Make ``output``; the number of units that an earlier run had finished already.

    Raises:
        InvalidFile: a source is cut short, or holds values that are not finite; names the tensor.
            Nothing is kept.
        StorageError: no space, no permission. What is finished is kept for the next run.
        Conflict: something of that name exists, or another process is making it.
    """
    with storage_errors(output.path.parent):
        output.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(output.path.with_name(output.path.name + ".partial.lock"))
        if not lock.try_acquire():
            raise Conflict(
                str(output.path),
                found="another process that writes it",
                hint="wait for it to finish, or choose another output path",
            )
        try:
            _refuse_existing(output)
            return _run(output, threads or usable_cores(), memory_bytes, progress, resume)
        finally:
            lock.release(delete=True)


def _refuse_existing(output: FolderOutput) -> None:
    path = output.path
    taken = path.is_dir() if output.single else path.is_file() or path.is_symlink()
    if taken or (path.is_dir() and any(path.iterdir())):
        raise Conflict(
            str(path),
            found="something of that name",
            expected="a new name" if output.single else "a new or empty folder",
            hint="remove it, or choose another name",
        )


def _run(
    output: FolderOutput, threads: int, memory: int, progress: Step | None, resume: bool
) -> int:
    work = output.partial
    journal = Journal(work / JOURNAL, output.digest(), len(output.units))
    whole = all(_size(work / f.name) == f.size_bytes for f in output.files)
    done = journal.read() if resume and whole else frozenset()
    if not done and (work.exists() or work.is_symlink()):
        _remove(work)
    work.mkdir(exist_ok=True)
    held = sum(_held(work / f.name) for f in output.files)
    require_space(work, max(0, output.size_bytes - held), subject=str(output.path))
    with contextlib.ExitStack() as stack:
        handles = [_open(stack, work / f.name, f) for f in output.files]
        journal.start(done)
        fsync_folder(work)
        try:
            _Job(output, handles, journal, threads, memory, progress).run(done)
        except InvalidFile:
            stack.close()
            _remove(work)
            raise
        for handle in handles:
            os.fsync(handle)
    _finish(output)
    return len(done)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _held(path: Path) -> int:
    """Bytes that the file already takes on the disk."""
    if os.name == "nt" or not path.exists():
        return 0
    return path.stat().st_blocks * 512


def _open(stack: contextlib.ExitStack, path: Path, file: OutFile) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    stack.callback(os.close, handle)
    os.ftruncate(handle, file.size_bytes)
    write_all(handle, memoryview(file.header), 0)
    os.fsync(handle)
    return handle


def _finish(output: FolderOutput) -> None:
    """Put the small files beside the weights, and give the whole its name."""
    work = output.partial
    for name, source in output.copies.items():
        shutil.copyfile(source, work / name)
    for name, text in output.texts.items():
        (work / name).write_bytes(text)
    for name in (*output.copies, *output.texts):
        with (work / name).open("rb") as file:
            os.fsync(file.fileno())
    if output.single:
        (work / output.files[0].name).replace(output.path)
        _remove(work)
    else:
        (work / JOURNAL).unlink()
        fsync_folder(work)
        if output.path.is_dir():
            output.path.rmdir()
        work.rename(output.path)
    fsync_folder(output.path.parent)


# ----------------------------------------------------------------------------------------- work


@dataclass(frozen=True, slots=True)
class _Chunk:
    unit: int
    piece: Matrix
    first: int
    """First row within the piece."""
    rows: int
    at: int
    """First row within the unit."""


class _Job:
    """One run: threads that encode, and the caller's thread that keeps the books."""

    def __init__(
        self,
        output: FolderOutput,
        handles: list[int],
        journal: Journal,
        threads: int,
        memory: int,
        progress: Step | None,
    ) -> None:
        self.output = output
        self.handles = handles
        self.journal = journal
        self.threads = threads
        self.elements = min(MOST_ELEMENTS, max(1, memory // (threads * BYTES_PER_ELEMENT)))
        self.progress = progress
        self.finished: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.left: dict[int, int] = {}

    def run(self, done: frozenset[int]) -> None:
        units = self.output.units
        todo = [i for i in range(len(units)) if i not in done]
        self.left = {i: sum(1 for _ in self.chunks_of(i)) for i in todo}
        chunks = (c for i in todo for c in self.chunks_of(i))
        workers = [
            threading.Thread(target=self.work, args=(chunks,), name=f"encode-{n}")
            for n in range(self.threads)
        ]
        for worker in workers:
            worker.start()
        try:
            failure = self.keep_books(done)
        finally:
            self.stop.set()
            for worker in workers:
                worker.join()
        if failure is not None:
            raise failure

    def keep_books(self, done: frozenset[int]) -> BaseException | None:
        """Note what is finished until all threads have ended; the first error."""
        units = self.output.units
        total = sum(u.size_bytes for u in units)
        written = sum(units[i].size_bytes for i in done)
        notes: list[int] = []
        unsaved, since = 0, time.monotonic()
        alive, failure = self.threads, None
        while alive:
            event = self.finished.get()
            if not isinstance(event, int):
                alive -= 1
                failure = failure or event
                continue
            notes.append(event)
            written += units[event].size_bytes
            unsaved += units[event].size_bytes
            if unsaved >= FLUSH_BYTES or time.monotonic() - since >= FLUSH_SECONDS:
                self.save(notes)
                notes, unsaved, since = [], 0, time.monotonic()
            if self.progress is not None:
                self.progress(written, total, units[event].name)
        with contextlib.suppress(OSError) if failure else contextlib.nullcontext():
            self.save(notes)
        return failure

    def save(self, notes: list[int]) -> None:
        if notes:
            for handle in self.handles:
                os.fsync(handle)
            self.journal.add(notes)

    def chunks_of(self, index: int) -> Iterator[_Chunk]:
        unit = self.output.units[index]
        at = 0
        for piece in unit.pieces:
            rows, columns = piece.shape
            unit_rows = max(piece.step, unit.encoder.step)  # powers of two, so a common multiple
            step = max(1, self.elements // columns // unit_rows) * unit_rows
            for first in range(0, rows, step):
                count = min(step, rows - first)
                yield _Chunk(index, piece, first, count, at + first)
            at += rows

    def work(self, chunks: Iterator[_Chunk]) -> None:
        files = Files()
        try:
            while not self.stop.is_set():
                with self.lock:
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                with np.errstate(all="ignore"):  # what is not finite is found and named
                    self.convert(files, chunk)
                with self.lock:
                    self.left[chunk.unit] -= 1
                    complete = self.left[chunk.unit] == 0
                if complete:
                    self.finished.put(chunk.unit)
            self.finished.put(None)
        except BaseException as error:  # to be raised where the caller waits
            self.stop.set()
            self.finished.put(error)
        finally:
            files.close()

    def convert(self, files: Files, chunk: _Chunk) -> None:
        unit = self.output.units[chunk.unit]
        made = _untouched(files, unit, chunk)
        if made is None:
            try:
                values = chunk.piece.read(files, chunk.first, chunk.rows)
            except ValueError as e:
                raise senseless(chunk.piece.region.path, unit.name, str(e)) from e
            if not np.isfinite(values).all():
                raise not_finite(chunk.piece.region.path, unit.name)
            made = list(unit.encoder.encode(values))
            self.check_range(unit, chunk, made, values)
        arrays = iter(made)
        for part, place in unit.parts:
            handle = self.handles[place.file]
            if part.along == "none":
                if chunk.at == 0 and part.data is not None:
                    write_rows(handle, place, 0, part.data)
            elif part.along == "rows":
                write_rows(handle, place, chunk.at // part.unit, next(arrays))
            else:
                write_columns(handle, place, chunk.at // part.unit, next(arrays))

    def check_range(
        self, unit: Unit, chunk: _Chunk, made: list[NDArray[Any]], values: NDArray[np.float32]
    ) -> None:
        parts = [part for part, _ in unit.parts if part.along != "none"]
        for part, array in zip(parts, made, strict=True):
            if part.dtype in EXPONENT and not all_finite(part.dtype, array):
                raise too_large(chunk.piece.region.path, unit.name, part.dtype, values)
        if isinstance(unit.encoder, GgmlEncoder) and not sound(unit.encoder.kind, made[0]):
            raise too_large(chunk.piece.region.path, unit.name, unit.encoder.kind.name, values)


def _untouched(files: Files, unit: Unit, chunk: _Chunk) -> list[NDArray[Any]] | None:
    """The stored bytes, where the target stores the same; ``None`` where it does not."""
    piece, encoder = chunk.piece, unit.encoder
    if isinstance(piece, Plain) and isinstance(encoder, PlainEncoder):
        if piece.region.dtype != encoder.dtype:
            return None
        stored = files.rows(piece.region, chunk.first, chunk.rows)
        if not all_finite(encoder.dtype, stored):
            raise not_finite(chunk.piece.region.path, unit.name)
        return [stored]
    if isinstance(piece, Ggml) and isinstance(encoder, GgmlEncoder):
        if piece.kind.name != encoder.kind.name:
            return None
        stored = files.rows(piece.region, chunk.first, chunk.rows)
        if not sound(piece.kind, stored):
            raise not_finite(chunk.piece.region.path, unit.name)
        return [stored]
    return None
