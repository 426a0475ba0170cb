"""The older form of an importance matrix, ``.dat``: numbers end to end, nothing else.

i32 number of entries; per entry i32 length and bytes of the name, i32 calls, i32 number of values,
the values as f32; then, in all but the oldest files, i32 chunks, i32 length and bytes of the name
of the text. A value is sum / count x calls; experts lie one after the other, and what saw nothing
has an importance of 1. Little-endian. Source: llama.cpp ``tools/imatrix/imatrix.cpp``
(``save_imatrix_legacy``), ``common/imatrix-loader.cpp``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from qwharf.formats.atomic import AtomicFile
from qwharf.formats.opening import open_binary
from qwharf.quantize.imatrix import (
    MAX_ENTRIES,
    MAX_NAME_BYTES,
    MAX_VALUES,
    Entry,
    Importance,
    checked,
    refused,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_TOKENS = 512
"""What a call is taken to have been; the file does not say."""
MAX_TEXT_BYTES = 1 << 16


def read_dat(path: Path) -> Importance:
    """Read a file.

    Raises:
        InvalidFile: not an importance matrix, or a damaged one; names the byte.
        StorageError: it may not be read.
    """
    with open_binary(path) as (file, size):
        return checked(_Reader(path, file, size).importance())


class _Reader:
    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.file = file
        self.size = size
        self.at = 0

    def importance(self) -> Importance:
        count = self.number("the number of entries", 1, MAX_ENTRIES, " in llama.cpp's older form")
        entries: dict[str, Entry] = {}
        left = MAX_VALUES
        for _ in range(count):
            name = self.text("a tensor's name", 1, MAX_NAME_BYTES)
            if name in entries:
                raise self.refused(f"{name!r:.200} twice", "each tensor once")
            calls = self.number(f"the calls of {name!r:.200}", -(2**31), 2**31 - 1)
            values = self.number(f"the number of values of {name!r:.200}", 1, left)
            left -= values
            raw = self.take(4 * values, f"values of {name!r:.200}")
            entries[name] = _entry(np.frombuffer(raw, "<f4"), calls)
        chunks = 0
        datasets: tuple[str, ...] = ()
        if self.at < self.size:
            chunks = max(0, self.number("the number of chunks", -(2**31), 2**31 - 1))
        if self.at < self.size:
            name = self.text("the name of the text", 0, MAX_TEXT_BYTES)
            datasets = (name,) if name else ()
        if self.at < self.size:
            raise self.refused(f"{self.size - self.at:,} bytes more", "the end of the file")
        return Importance(
            entries=dict(sorted(entries.items())),
            chunks=chunks,
            chunk_tokens=CHUNK_TOKENS,
            datasets=datasets,
            source=str(self.path),
        )

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise self.refused(f"{what} of {count:,} bytes", f"at most {self.size - self.at:,}")
        data = self.file.read(count)
        if len(data) != count:
            raise self.refused(f"the end within {what}", f"{count:,} bytes")
        self.at += count
        return data

    def number(self, what: str, least: int, most: int, where: str = "") -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        if not least <= value <= most:
            raise self.refused(f"{what} = {value:,}", f"from {least:,} to {most:,}{where}")
        return int(value)

    def text(self, what: str, least: int, most: int) -> str:
        length = self.number(f"the length of {what}", least, most)
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def refused(self, found: str, expected: str) -> Exception:
        return refused(str(self.path), f"{found}, at byte {self.at:,}", expected)


def _entry(values: NDArray[np.float32], calls: int) -> Entry:
    if calls <= 0:  # taken as importances
        return Entry(values[None], np.ones(1, np.int64))
    with np.errstate(over="ignore", invalid="ignore"):  # found to be no numbers later
        sums = values[None] * np.float32(CHUNK_TOKENS)  # a power of two: exact
    return Entry(sums, np.array([calls * CHUNK_TOKENS]))


def write_dat(importance: Importance, path: Path) -> None:
    """Write a file; see :func:`qwharf.quantize.imatrix.write`."""
    entries = sorted((n, e) for n, e in importance.entries.items() if e.counts.any())
    file = AtomicFile(path)
    file.open(struct.pack("<i", len(entries)))
    try:
        for name, entry in entries:
            calls = -(-int(entry.counts.max()) // importance.chunk_tokens)
            raw = name.encode("utf-8", "surrogateescape")
            file.write(struct.pack("<i", len(raw)) + raw)
            file.write(struct.pack("<ii", calls, entry.sums.size))
            file.write(np.ascontiguousarray(entry.means() * np.float32(calls), "<f4").data)
        text = importance.datasets[-1] if importance.datasets else ""
        raw = text.encode("utf-8", "surrogateescape")
        file.write(struct.pack("<ii", importance.chunks, len(raw)) + raw)
    except BaseException:
        file.discard()
        raise
    file.commit()
