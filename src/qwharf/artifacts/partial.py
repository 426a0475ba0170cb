"""An output in the making: everything around the writing of its weights.

All is made in a folder ``NAME.partial``: the files at their full length, and a journal of what is
finished in them, noted after the data has reached the disk. Who finds such a folder of the same
plan goes on from there. At the end the folder (or its only file) gets its name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwharf.artifacts.disk import fsync_folder, require_space, storage_errors
from qwharf.artifacts.journal import Journal
from qwharf.artifacts.locks import FileLock
from qwharf.artifacts.output import OutFile, Output
from qwharf.artifacts.positioned import write_all
from qwharf.errors import Conflict, InvalidFile, StorageError

JOURNAL = ".journal"


class Partial:
    """The open files of an unfinished output."""

    def __init__(self, output: Output, folder: Path) -> None:
        self.output = output
        self.folder = folder
        self.handles: list[int] = []
        """One for each of the output's files."""
        self.done: frozenset[int] = frozenset()
        """Units that an earlier run finished."""
        self._journal = Journal(folder / JOURNAL, output.digest(), len(output.units))

    def begin(self, resume: bool) -> None:
        """Go on where an earlier run stopped, or begin anew."""
        files = self.output.files
        whole = all(_size(self.folder / f.name) == f.size_bytes for f in files)
        self.done = self._journal.read() if resume and whole else frozenset()
        if not self.done:
            remove(self.folder)
        held = sum(_held(self.folder / f.name) for f in files)
        needed = max(0, self.output.size_bytes - held)
        require_space(self.folder.parent, needed, subject=str(self.output.path))
        self.folder.mkdir(exist_ok=True)
        for file in files:
            self.handles.append(_open(self.folder / file.name, file))
        self._journal.start(self.done)
        fsync_folder(self.folder)

    def note(self, units: Sequence[int]) -> None:
        """Note that ``units`` are finished, once that is true of the disk, too."""
        self._sync()
        self._journal.add(units)

    def _sync(self) -> None:
        for handle in self.handles:
            os.fsync(handle)

    def close(self) -> None:
        """Close the files."""
        while self.handles:
            os.close(self.handles.pop())

    def finish(self) -> None:
        """Put the small files beside the weights, and give the whole its name."""
        self._sync()
        self.close()
        output = self.output
        for name, source in output.copies.items():
            shutil.copyfile(source, self.folder / name)
        for name, text in output.texts.items():
            (self.folder / name).write_bytes(text)
        for name in (*output.copies, *output.texts):
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())
        if output.single:
            (self.folder / output.files[0].name).replace(output.path)
            remove(self.folder)
        else:
            (self.folder / JOURNAL).unlink()
            fsync_folder(self.folder)
            if output.path.is_dir():
                output.path.rmdir()
            self.folder.rename(output.path)
        fsync_folder(output.path.parent)


@contextlib.contextmanager
def making(output: Output, *, resume: bool = True) -> Iterator[Partial]:
    """The files of ``output`` to write into; it gets its name if the block ends well.

    Raises:
        InvalidFile: from the block. Nothing is kept.
        StorageError: no space, no permission. What is finished is kept for the next run, as it is
            after any other error.
        Conflict: something of that name exists, or another process is making it.
    """
    path = output.path
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_existing(output)
        lock = FileLock(path.with_name(path.name + ".partial.lock"))
        if not lock.try_acquire():
            raise Conflict(
                str(path),
                found="another process that writes it",
                hint="wait for it to finish, or choose another output path",
            )
        partial = Partial(output, path.with_name(path.name + ".partial"))
        try:
            partial.begin(resume)
            yield partial
            partial.finish()
        except InvalidFile:
            partial.close()
            remove(partial.folder)
            raise
        finally:
            partial.close()
            lock.release(delete=True)


def _refuse_existing(output: Output) -> None:
    """A file is replaced when its successor is whole; a folder may hold anything, so it is not."""
    path = output.path
    if output.single and path.is_dir():
        raise StorageError(
            str(path), found="a folder", expected="a file to write", hint="name a file"
        )
    if not output.single and (
        path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))
    ):
        raise Conflict(
            str(path),
            found="something of that name",
            expected="a new or empty folder",
            hint="remove it, or choose another name",
        )


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if there is one."""
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


def _open(path: Path, file: OutFile) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        os.ftruncate(handle, file.size_bytes)
        write_all(handle, memoryview(file.header), 0)
        os.fsync(handle)
    except OSError:
        os.close(handle)
        raise
    return handle
