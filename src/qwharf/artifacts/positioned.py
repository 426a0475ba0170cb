"""Read and write at places of files, several threads at once."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.errors import InvalidFile
from qwharf.formats.weights.floats import STORED

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPECT_BYTES = 512 << 10
"""Linux fetches no more than this, on many disks, however much it is asked for at once."""


def itemsize_of(dtype: str) -> int:
    """Bytes of an element of a safetensors dtype."""
    return int(np.dtype(STORED[dtype]).itemsize)


@dataclass(frozen=True, slots=True)
class Region:
    """A tensor of rows and columns somewhere in a file."""

    name: str
    path: Path
    offset: int
    dtype: str
    """As a safetensors header names it; ``U8`` for the raw bytes of a GGUF tensor."""
    shape: tuple[int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.shape[1] * itemsize_of(self.dtype)


class Files:
    """Open source files, for any number of threads; close it when done."""

    def __init__(self) -> None:
        self._handles: dict[Path, int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all files."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def rows(self, region: Region, first: int, count: int) -> NDArray[Any]:
        """A run of rows, [count, columns].

        Raises:
            InvalidFile: the file cannot be read, or is shorter than its header says.
        """
        out = np.empty((count, region.shape[1]), STORED[region.dtype])
        at = region.offset + first * region.row_bytes
        self._read(region, at, out.reshape(-1).view(np.uint8).data)
        return out

    def expect(self, region: Region, first: int, count: int) -> None:
        """Let the system fetch a run of rows from the disk while other work is done."""
        if not hasattr(os, "posix_fadvise"):  # macOS, Windows: they read ahead on their own
            return
        begin = region.offset + first * region.row_bytes
        end = begin + count * region.row_bytes
        with contextlib.suppress(OSError, InvalidFile):  # who reads it will say what is wrong
            handle = self._handle(region.path)
            for at in range(begin, end, EXPECT_BYTES):
                os.posix_fadvise(handle, at, min(EXPECT_BYTES, end - at), os.POSIX_FADV_WILLNEED)

    def whole(self, region: Region) -> NDArray[Any]:
        """All rows; see :meth:`rows`."""
        return self.rows(region, 0, region.shape[0])

    def columns(self, region: Region, first: int, count: int) -> NDArray[Any]:
        """A run of columns of all rows, [rows, count]; see :meth:`rows`."""
        if count == region.shape[1]:
            return self.whole(region)
        out = np.empty((region.shape[0], count), STORED[region.dtype])
        raw = out.view(np.uint8).reshape(region.shape[0], -1)
        at = region.offset + first * out.itemsize
        for n in range(region.shape[0]):
            self._read(region, at + n * region.row_bytes, raw[n].data)
        return out

    def _read(self, region: Region, offset: int, view: memoryview) -> None:
        handle = self._handle(region.path)
        got = 0
        while got < len(view):
            count = read_at(handle, view[got:], offset + got)
            if count == 0:
                raise InvalidFile(
                    str(region.path),
                    found=f"the end of the file at byte {offset + got:,}",
                    expected=f"{region.name} up to byte {offset + len(view):,}",
                    hint="the file is cut short; get it again",
                    tensor=region.name,
                )
            got += count

    def _handle(self, path: Path) -> int:
        with self._lock:
            handle = self._handles.get(path)
            if handle is None:
                try:
                    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                except OSError as e:
                    raise InvalidFile(
                        str(path), found=e.strerror or str(e), expected="a readable weight file"
                    ) from e
                self._handles[path] = handle
            return handle


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of rows and columns goes in an output file."""

    file: int
    offset: int
    shape: tuple[int, int]
    itemsize: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.itemsize


def write_rows(handle: int, place: Place, first: int, data: NDArray[Any]) -> None:
    """Write a run of rows."""
    row = place.shape[1] * place.itemsize
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    write_all(handle, raw.data, place.offset + first * row)


def write_columns(handle: int, place: Place, first: int, data: NDArray[Any]) -> None:
    """Write a run of columns of all rows."""
    if data.shape[1] == place.shape[1]:
        write_rows(handle, place, 0, data)
        return
    row = place.shape[1] * place.itemsize
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(len(data), -1)
    at = place.offset + first * place.itemsize
    for n in range(len(raw)):
        write_all(handle, raw[n].data, at + n * row)


def write_all(handle: int, data: memoryview, at: int) -> None:
    """Write all of ``data`` at byte ``at``."""
    written = 0
    while written < len(data):
        written += write_at(handle, data[written:], at + written)


if hasattr(os, "preadv"):

    def read_at(handle: int, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from byte ``offset``; how much there was."""
        return os.preadv(handle, [buffer], offset)

    def write_at(handle: int, data: memoryview, offset: int) -> int:
        """Write at byte ``offset``; how much went."""
        return os.pwrite(handle, data, offset)

else:  # pragma: no cover - Windows: one file position, so one at a time
    _position = threading.Lock()

    def read_at(handle: int, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from byte ``offset``; how much there was."""
        with _position:
            os.lseek(handle, offset, os.SEEK_SET)
            data = os.read(handle, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_at(handle: int, data: memoryview, offset: int) -> int:
        """Write at byte ``offset``; how much went."""
        with _position:
            os.lseek(handle, offset, os.SEEK_SET)
            return os.write(handle, data)
