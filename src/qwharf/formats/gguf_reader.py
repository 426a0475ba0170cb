"""The GGUF container: a strict reader that believes nothing.

Layout (llama.cpp ``ggml/src/gguf.cpp``): magic ``GGUF``, version u32, tensor count i64, key count
i64; the keys (name, type u32, value); per tensor name, dimension count u32, sizes i64 (the reverse
of torch's order), type u32, offset u64 from the start of the data; padding to the
alignment; the data, each tensor padded to it. All little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from qwharf.errors import InvalidFile
from qwharf.formats.ggml_types import GGML_TYPES_BY_ID, GgmlType
from qwharf.formats.opening import open_binary, read_span

MAX_HEADER_BYTES = 128 << 20
"""Qwen3's own headers have 6 MB; nearly all of it is the vocabulary."""
MAX_STRING_BYTES = 16 << 20
MAX_ITEMS = 1 << 22
MAX_TENSORS = 1 << 16
MAX_KEYS = 1 << 12
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 255
REFETCH = "fetch or convert the file again; it is damaged or was cut off"

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_KINDS = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str",
    9: "array", 10: "u64", 11: "i64", 12: "f64",
}  # fmt: skip
_BLOCK_BYTES = 1 << 20
_KEPT = 64


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: ``shape`` in torch's order, ``offset`` from the start of ``path``."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    size_bytes: int
    path: Path


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A read header. A long array that was skipped is a :class:`Skipped` value."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    """Of this file alone; :func:`qwharf.formats.gguf.all_tensors` has those of all parts."""
    data_offset: int
    alignment: int
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The type of each metadata value as the writer names it: ``u32``, ``str``, ``[i32]`` …"""

    def chunks(self, name: str, chunk_bytes: int = 16 << 20) -> Iterator[bytes]:
        """The raw bytes of a tensor of this file, at most ``chunk_bytes`` at a time.

        Raises:
            InvalidFile: the file became shorter since its header was read.
        """
        tensor = self.tensors[name]
        yield from read_span(
            self.path,
            tensor.offset,
            tensor.size_bytes,
            what=repr(name),
            hint=REFETCH,
            chunk_bytes=chunk_bytes,
        )


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was checked but not kept."""

    length: int


def read_gguf(path: Path, *, keep_arrays: bool = False) -> GgufFile:
    """Read and check the header of one file; no tensor is read.

    Args:
        path: the file; of a split one, any part.
        keep_arrays: keep long arrays (the vocabulary) too, instead of :class:`Skipped`.

    Raises:
        InvalidFile: truncated, oversized, overlapping, of unknown types or versions, or no GGUF.
        StorageError: the file may not be read.
    """
    with open_binary(path, 0) as (file, size):
        return _read(_Reader(path, file, size), MAX_ITEMS if keep_arrays else _KEPT)


def _invalid(path: Path, found: str, expected: str, hint: str = REFETCH) -> InvalidFile:
    return InvalidFile(str(path), found=found, expected=expected, hint=hint)


class _Reader:
    """Reads values in order, a block at a time, and never beyond the end or the cap."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.size = size
        self._file = file
        self._block = b""
        self._at = 0
        self._left = min(size, MAX_HEADER_BYTES)  # bytes not yet in the block
        self._items = MAX_ITEMS  # that lists may still have, all together

    @property
    def at(self) -> int:
        """Offset of the next byte in the file."""
        return min(self.size, MAX_HEADER_BYTES) - self._left - len(self._block) + self._at

    @property
    def left(self) -> int:
        """Bytes that a header may still have."""
        return self._left + len(self._block) - self._at

    def _refill(self, count: int, what: str) -> None:
        """Have ``count`` bytes in the block at hand."""
        if count > self.left:
            end = "the file" if self.size <= MAX_HEADER_BYTES else f"{MAX_HEADER_BYTES:,} bytes"
            raise _invalid(
                self.path,
                f"{what} of {count:,} bytes at byte {self.at:,} of {self.size:,}",
                f"a header that ends within {end}",
            )
        rest = self._block[self._at :]
        wanted = min(max(count - len(rest), _BLOCK_BYTES), self._left)
        parts = [rest]
        while wanted and (data := self._file.read(wanted)):
            parts.append(data)
            wanted -= len(data)
            self._left -= len(data)
        self._block, self._at = b"".join(parts), 0
        if len(self._block) < count:
            raise _invalid(self.path, f"the end at byte {self.at + len(self._block):,}", what)

    def take(self, count: int, what: str) -> bytes:
        """Exactly ``count`` bytes."""
        if count > len(self._block) - self._at:
            self._refill(count, what)
        start = self._at
        self._at += count
        return self._block[start : self._at]

    def number(self, code: str, what: str) -> Any:
        """One number."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def text(self, what: str, limit: int = MAX_STRING_BYTES) -> str:
        """A string: u64 length and UTF-8 (a tokenizer's may hold stray bytes)."""
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            raise _invalid(self.path, f"{what} of {length:,} bytes", f"at most {limit:,}")
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def texts(self, count: int, what: str, *, keep: bool) -> list[str]:
        """``count`` strings; empty if they are not to be kept. A vocabulary has 303,323 of them."""
        out: list[str] = []
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if len(self._block) - self._at < 8:
                self._refill(8, what)
            (length,) = length_at(self._block, self._at)
            if length > MAX_STRING_BYTES:
                raise _invalid(
                    self.path, f"an item of {what} of {length:,} bytes", "a string in the file"
                )
            self._at += 8
            if length > len(self._block) - self._at:
                self._refill(length, f"an item of {what}")
            if keep:
                raw = self._block[self._at : self._at + length]
                out.append(raw.decode("utf-8", "surrogateescape"))
            self._at += length
        return out

    def array(self, what: str, keep: int) -> tuple[str, list[Any] | Skipped]:
        """The type of the items and the items, or how many there are if over ``keep``."""
        item, count = self.number("I", what), self.number("Q", what)
        if item not in _SCALARS and item != _STRING:
            raise _invalid(self.path, f"{what}: a list of type {item}", "numbers or strings")
        width = 8 if item == _STRING else struct.calcsize("<" + _SCALARS[item])
        if count > self._items or count > self.left // width:
            raise _invalid(
                self.path,
                f"{what} with {count:,} items",
                f"at most {MAX_ITEMS:,} in all lists, within the file",
            )
        self._items -= count
        kind = f"[{_KINDS[item]}]"
        if item == _STRING:
            texts = self.texts(count, what, keep=count <= keep)
            return kind, texts if count <= keep else Skipped(count)
        data = self.take(count * width, what)
        if count > keep:
            return kind, Skipped(count)
        return kind, list(struct.unpack(f"<{count}{_SCALARS[item]}", data))

    def value(self, what: str, keep: int) -> tuple[str, Any]:
        """One metadata value, with the name of its type."""
        kind = self.number("I", f"the type of {what}")
        if kind in _SCALARS:
            return _KINDS[kind], self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return "str", self.text(what)
        if kind == _ARRAY:
            return self.array(what, keep)
        raise _invalid(self.path, f"{what} of type {kind}", "a value type from 0 to 12")


def _read(reader: _Reader, keep: int) -> GgufFile:
    path = reader.path
    magic = reader.take(min(4, reader.size), "the magic")
    if magic != b"GGUF":
        raise _invalid(path, f"first bytes {magic!r}", "b'GGUF'", "this is not a GGUF file")
    version = reader.number("I", "the version")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        order = " (big-endian)" if swapped in (2, 3) else ""
        raise _invalid(
            path,
            f"GGUF version {swapped if order else version}{order}",
            "2 or 3, little-endian",
            "get a current version of the file",
        )
    n_tensors, n_keys = reader.number("q", "tensor count"), reader.number("q", "key count")
    if not 0 <= n_tensors <= MAX_TENSORS or not 0 <= n_keys <= MAX_KEYS:
        raise _invalid(
            path,
            f"{n_tensors:,} tensors and {n_keys:,} keys",
            f"at most {MAX_TENSORS:,} and {MAX_KEYS:,}",
        )
    metadata: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for _ in range(n_keys):
        key = reader.text("a key", MAX_KEY_BYTES)
        shown = repr(key[:100])
        if not key or key in metadata:
            raise _invalid(path, f"key {shown} twice" if key else "an empty key", "distinct keys")
        kinds[key], metadata[key] = reader.value(shown, keep)
    alignment = _alignment(path, metadata)
    raw = [_tensor_info(reader) for _ in range(n_tensors)]
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    due = start
    for name, shape, kind, offset in raw:
        if name in tensors:
            raise _invalid(path, f"tensor {name!r} twice", "each tensor once")
        tensors[name] = tensor = _tensor(path, name, shape, kind, start + offset)
        # Llama.cpp wants them end to end and in order too, so overlaps and holes cannot be.
        if tensor.offset != due:
            raise _invalid(
                path,
                f"tensor {name!r} at offset {offset:,}",
                f"{due - start:,}, after the one before",
            )
        end = due + tensor.size_bytes
        if end > reader.size:
            raise _invalid(
                path, f"a file of {reader.size:,} bytes", f"at least {end:,}, where {name!r} ends"
            )
        due = -(-end // alignment) * alignment
    return GgufFile(path, version, metadata, tensors, start, alignment, kinds)


def _alignment(path: Path, metadata: Mapping[str, Any]) -> int:
    value: Any = metadata.get("general.alignment", 32)
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20
    if not good or value & (value - 1):
        raise _invalid(path, f"general.alignment = {str(value)[:80]}", "a power of two")
    return int(value)


def _tensor_info(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.text("a tensor's name", MAX_NAME_BYTES)
    if not name or "\0" in name:
        raise _invalid(reader.path, f"a tensor named {name!r}", "names without NUL")
    dims = reader.number("I", f"the dimensions of {name!r}")
    if not 1 <= dims <= 4:
        raise _invalid(reader.path, f"tensor {name!r} of {dims} dimensions", "1 to 4")
    sizes = [reader.number("q", f"the shape of {name!r}") for _ in range(dims)]
    if any(not 0 < s < 2**40 for s in sizes):
        raise _invalid(reader.path, f"tensor {name!r} of shape {sizes}", "positive sizes")
    kind = reader.number("I", f"the type of {name!r}")
    return name, tuple(reversed(sizes)), kind, reader.number("Q", f"the offset of {name!r}")


def _tensor(path: Path, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
    known = GGML_TYPES_BY_ID.get(kind)
    if known is None:
        raise _invalid(path, f"tensor {name!r} of type {kind}", "a known tensor type")
    if shape[-1] % known.block_elements:
        raise _invalid(
            path,
            f"tensor {name!r} with rows of {shape[-1]}",
            f"multiples of {known.block_elements}",
        )
    return GgufTensor(name, shape, known, offset, known.size_bytes(math.prod(shape)), path)
