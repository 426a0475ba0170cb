"""Write GGUF files; the same input gives the same bytes.

:func:`gguf_header` makes the header alone: who writes the tensors' data at the offsets returned can
do it in any order. :class:`GgufWriter` writes a whole file, tensor by tensor, in bounded memory.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from qwharf.formats.atomic import AtomicFile
from qwharf.formats.ggml_types import GgmlType

_CODES = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"),
    "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"),
    "f64": (12, "d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9

Metadata = Mapping[str, tuple[str, Any]]
"""Key to (type, value); a type is ``u32``, ``str``, ``[i32]``, ``[str]`` …"""


@dataclass(frozen=True, slots=True)
class Header:
    """The bytes up to the data, and where each tensor goes."""

    data: bytes
    offsets: Mapping[str, int]
    """From the start of the file."""
    size_bytes: int
    """Of the whole file, padding after the last tensor included."""


def gguf_header(
    metadata: Metadata,
    tensors: Sequence[tuple[str, Sequence[int], GgmlType]],
    alignment: int = 32,
) -> Header:
    """The header of a version 3 file.

    Args:
        metadata: keys in the order to write them.
        tensors: (name, shape in torch's order, type), in the order of their data.
        alignment: to which tensors are padded; written as a key where it is not 32.

    Raises:
        ValueError: a value is not of its type, a tensor comes twice or has no or over four
            dimensions, rows are no multiple of the type's block, or the alignment is no power of
            two.
    """
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment {alignment} is no power of two")
    if alignment != 32:
        metadata = {**metadata, "general.alignment": ("u32", alignment)}
    out = bytearray(b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(metadata)))
    for key, (kind, value) in metadata.items():
        if not key:
            raise ValueError("a key is empty")
        out += _string(key) + _value(kind, value)
    relative: dict[str, int] = {}
    at = 0
    for name, shape, type_ in tensors:
        if name in relative or not 1 <= len(shape) <= 4:
            raise ValueError(f"{name}: twice, or of {len(shape)} dimensions")
        if shape[-1] % type_.block_elements:
            raise ValueError(f"{name}: rows of {shape[-1]} do not suit {type_.name}")
        out += _string(name) + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}q", *reversed(shape))
        out += struct.pack("<IQ", type_.id, at)
        relative[name] = at
        at += _padded(type_.size_bytes(math.prod(shape)), alignment)
    out += b"\0" * (-len(out) % alignment)
    start = len(out)
    return Header(bytes(out), {n: start + o for n, o in relative.items()}, start + at)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: str, value: Any) -> bytes:
    if kind == "str":
        return struct.pack("<I", _STRING) + _string(value)
    if kind in _CODES:
        number, code = _CODES[kind]
        return struct.pack("<I", number) + _pack(kind, code, [value])
    inner = kind.removeprefix("[").removesuffix("]")
    if kind != f"[{inner}]" or (inner != "str" and inner not in _CODES):
        raise ValueError(f"unknown type {kind}")
    head = struct.pack("<I", _ARRAY)
    if inner == "str":
        return head + struct.pack("<IQ", _STRING, len(value)) + b"".join(map(_string, value))
    number, code = _CODES[inner]
    return head + struct.pack("<IQ", number, len(value)) + _pack(inner, code, value)


def _pack(kind: str, code: str, values: Sequence[Any]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except (struct.error, OverflowError, TypeError) as e:
        raise ValueError(f"{str(values)[:80]}: not all of them are {kind}") from e


class GgufWriter:
    """Writes a file tensor by tensor in bounded memory; it gets its name when it is whole.

    Use as a context manager: for each tensor in the order given, write its bytes in pieces of any
    size; the padding between them is made here. On an exception nothing is left under ``path``.
    """

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        tensors: Sequence[tuple[str, Sequence[int], GgmlType]],
        alignment: int = 32,
    ) -> None:
        """Prepare; see :func:`gguf_header` for the arguments and ``ValueError``."""
        self.header = gguf_header(metadata, tensors, alignment)
        self._alignment = alignment
        self._sizes = [type_.size_bytes(math.prod(shape)) for _, shape, type_ in tensors]
        self._next = 0
        self._left = 0
        self._file = AtomicFile(path)

    def __enter__(self) -> GgufWriter:
        self._file.open(self.header.data)
        self._advance()
        return self

    def _advance(self) -> None:
        """Pad the tensor that is whole, and go on to the next that is not empty."""
        while self._left == 0 and self._next < len(self._sizes):
            self._left = self._sizes[self._next]
            self._next += 1

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the tensor at hand, or of it and those that follow.

        Raises:
            ValueError: more than the tensors take.
        """
        view = memoryview(data).cast("B")
        while view.nbytes:
            if not self._left:
                raise ValueError(f"{view.nbytes} bytes more than the header promises")
            taken = min(self._left, view.nbytes)
            self._file.write(view[:taken])
            self._left -= taken
            view = view[taken:]
            if not self._left:
                self._file.write(bytes(-self._sizes[self._next - 1] % self._alignment))
                self._advance()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        missing = self._left + sum(self._sizes[self._next :])
        if kind is None and not missing:
            self._file.commit()
            return
        self._file.discard()
        if kind is None:
            raise ValueError(f"{missing} bytes fewer than the header promises")
