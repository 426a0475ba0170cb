"""Write the header of a GGUF file; the same input gives the same bytes.

The tensors' data is the caller's to write, at the offsets returned, so that files of any size are
written in bounded memory and in any order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        ValueError: a value is not of its type, or rows are no multiple of the type's block.
    """
    if alignment != 32:
        metadata = {**metadata, "general.alignment": ("u32", alignment)}
    out = bytearray(b"GGUF" + struct.pack("<Iqq", 3, len(tensors), len(metadata)))
    for key, (kind, value) in metadata.items():
        out += _string(key) + _value(kind, value)
    relative: dict[str, int] = {}
    at = 0
    for name, shape, type_ in tensors:
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
        try:
            return struct.pack("<I" + code, number, value)
        except struct.error as e:
            raise ValueError(f"{value!r} is no {kind}") from e
    inner = kind.removeprefix("[").removesuffix("]")
    if kind != f"[{inner}]" or (inner != "str" and inner not in _CODES):
        raise ValueError(f"unknown type {kind}")
    head = struct.pack("<I", _ARRAY)
    if inner == "str":
        return head + struct.pack("<IQ", _STRING, len(value)) + b"".join(map(_string, value))
    number, code = _CODES[inner]
    return (
        head + struct.pack("<IQ", number, len(value)) + struct.pack(f"<{len(value)}{code}", *value)
    )
