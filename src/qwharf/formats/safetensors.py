"""The safetensors container: a strict reader and a streaming writer.

Layout (huggingface/safetensors README): u64 little-endian header length; that many bytes of JSON,
``{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}``; then the
tensors' bytes without holes. Offsets count from the end of the header.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.formats.atomic import AtomicFile
from qwharf.formats.opening import open_binary, parse_json, read_span

MAX_HEADER_BYTES = 64 << 20
"""The reference implementation takes 100 MB; all 36,000 tensors of a 235B in one need 6."""
DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2,
    "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
REFETCH = "fetch the file again; it is damaged or was cut off"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: ``offset`` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """A read header."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_offset: int

    def chunks(self, name: str, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        """The raw bytes of a tensor, at most ``chunk_bytes`` at a time.

        Raises:
            InvalidFile: the file became shorter since its header was read.
        """
        entry = self.tensors[name]
        yield from read_span(
            self.path,
            entry.offset,
            entry.size_bytes,
            what=repr(name),
            hint=REFETCH,
            chunk_bytes=chunk_bytes,
        )


def _invalid(path: Path, found: str, expected: str, hint: str = REFETCH) -> InvalidFile:
    return InvalidFile(str(path), found=found, expected=expected, hint=hint)


def read_safetensors(path: Path) -> SafetensorsFile:
    """Read and check the header; no tensor is read.

    Raises:
        InvalidFile: truncated, oversized, overlapping, holed, of unknown dtype, or not safetensors.
        StorageError: the file may not be read.
    """
    with open_binary(path) as (f, size):
        prefix = f.read(8)
        if len(prefix) < 8:
            raise _invalid(path, f"{size} bytes", "a safetensors file (8 bytes and a header)")
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER_BYTES or length > size - 8:
            raise _invalid(
                path,
                f"a header of {length:,} bytes in a file of {size:,}",
                "a header within the file and of at most 64 MiB",
            )
        raw = f.read(length)
    header = _parse_header(path, raw)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _invalid(path, "__metadata__ with values that are not texts", "texts")
    start = 8 + length
    tensors = {name: _entry(path, name, value, start) for name, value in header.items()}
    _check_layout(path, tensors, start, size)
    return SafetensorsFile(path=path, tensors=tensors, metadata=metadata, data_offset=start)


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name comes twice")
        return made

    header = parse_json(path, raw, pairs=no_duplicates)
    if not isinstance(header, dict):
        raise _invalid(path, f"a header that is a {type(header).__name__}", "a JSON object")
    return header


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _entry(path: Path, name: str, value: Any, start: int) -> TensorEntry:
    where = f"tensor {name[:200]!r}"
    if not name or "\0" in name:
        raise _invalid(path, where, "names without NUL")
    if not isinstance(value, dict):
        raise _invalid(path, f"{where} that is no object", "dtype, shape and data_offsets")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _invalid(
            path, f"{where} of dtype {str(dtype)[:40]!r}", "one of " + ", ".join(DTYPE_BYTES)
        )
    if not isinstance(shape, list) or len(shape) > 16 or not all(map(_is_count, shape)):
        raise _invalid(path, f"{where} of shape {str(shape)[:80]}", "a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise _invalid(path, f"{where} with offsets {str(offsets)[:80]}", "[begin, end]")
    begin, end = offsets
    wanted = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != wanted:
        raise _invalid(path, f"{where} of {end - begin:,} bytes", f"{wanted:,} for {dtype} {shape}")
    return TensorEntry(name, dtype, tuple(shape), start + begin, wanted)


def _check_layout(path: Path, tensors: Mapping[str, TensorEntry], start: int, size: int) -> None:
    at = start
    for t in sorted(tensors.values(), key=lambda t: (t.offset, t.size_bytes)):
        if t.offset != at:
            kind = "overlaps another" if t.offset < at else "leaves a hole before it"
            raise _invalid(path, f"tensor {t.name!r} that {kind}", "tensors end to end")
        at += t.size_bytes
    if at != size:
        raise _invalid(path, f"{size:,} bytes", f"{at:,}, as the header says")


@dataclass(frozen=True, slots=True)
class Header:
    """The bytes up to the data, and where each tensor goes."""

    data: bytes
    offsets: Mapping[str, int]
    """From the start of the file."""
    size_bytes: int
    """Of the whole file."""


def safetensors_header(
    entries: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> Header:
    """The header of a file whose tensors are written in the order of ``entries``.

    Args:
        entries: (name, dtype such as ``BF16``, shape) of each tensor.
        metadata: texts to store beside them.

    Raises:
        ValueError: an unknown dtype, a name twice, or a negative size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    relative: dict[str, int] = {}
    for name, dtype, shape in entries:
        if name in header or name == "__metadata__":
            raise ValueError(f"{name!r} twice")
        if dtype not in DTYPE_BYTES or any(n < 0 for n in shape):
            raise ValueError(f"{name!r}: no tensor is {dtype} {list(shape)}")
        end = at + math.prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        relative[name] = at
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8, for memory maps
    data = struct.pack("<Q", len(text)) + text
    start = len(data)
    return Header(data, {n: start + o for n, o in relative.items()}, start + at)


class SafetensorsWriter:
    """Writes a file tensor by tensor in bounded memory; it gets its name when it is whole.

    Use as a context manager; write the tensors' bytes in the order of ``entries``, in pieces of any
    size. On an exception nothing is left under ``path``.
    """

    def __init__(
        self,
        path: Path,
        entries: Sequence[tuple[str, str, Sequence[int]]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the header.

        Args:
            path: the file to make.
            entries: (name, dtype such as ``BF16``, shape) of each tensor.
            metadata: texts to store beside them.

        Raises:
            ValueError: an unknown dtype, a name twice, or a negative size.
        """
        self.path = path
        header = safetensors_header(entries, metadata)
        self._head = header.data
        self._left = header.size_bytes - len(header.data)
        self._file = AtomicFile(path)

    def __enter__(self) -> SafetensorsWriter:
        self._file.open(self._head)
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            ValueError: more than the entries take.
        """
        size = memoryview(data).nbytes
        if size > self._left:
            raise ValueError(f"{size - self._left} bytes more than the header promises")
        self._file.write(data)
        self._left -= size

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._left == 0:
            self._file.commit()
            return
        self._file.discard()
        if kind is None:
            raise ValueError(f"{self._left} bytes fewer than the header promises")
