"""The GGUF container: a strict reader that believes nothing.

Layout (llama.cpp ``ggml/src/gguf.cpp``): magic ``GGUF``, version u32, tensor count i64, key count
i64; the keys (name, type u32, value); per tensor name, dimension count u32, sizes i64 (the reverse
of torch's order), type u32, offset u64 from the start of the data; padding to the
alignment; the data, each tensor padded to it. All little-endian.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile, UnsupportedArchitecture
from qwharf.formats.ggml_types import GGML_TYPES_BY_ID, GgmlType
from qwharf.types import Architecture

MAX_HEADER_BYTES = 512 << 20
MAX_TENSORS = 1 << 20
MAX_KEYS = 1 << 16
MAX_NAME_BYTES = 1 << 16
REFETCH = "fetch or convert the file again; it is damaged or was cut off"

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_KINDS = {
    0: "u8", 1: "i8", 2: "u16", 3: "i16", 4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str",
    9: "array", 10: "u64", 11: "i64", 12: "f64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: ``shape`` in torch's order, ``offset`` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A read header. A long array that was skipped is a :class:`Skipped` value."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    data_offset: int
    alignment: int
    kinds: Mapping[str, str] = field(default_factory=dict)
    """The type of each metadata value as the writer names it: ``u32``, ``str``, ``[i32]`` …"""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was checked for length but not kept."""

    length: int


def _invalid(path: Path, found: str, expected: str, hint: str = REFETCH) -> InvalidFile:
    return InvalidFile(str(path), found=found, expected=expected, hint=hint)


class _Reader:
    """Reads values in order and never beyond the end or the cap."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.file = path.open("rb")
        self.at = 0
        self.item = 0
        """Of the array read last, the type of its items."""

    def take(self, count: int, what: str) -> bytes:
        """Exactly ``count`` bytes."""
        if count > self.size - self.at or self.at + count > MAX_HEADER_BYTES:
            raise _invalid(
                self.path,
                f"{what} of {count:,} bytes at byte {self.at:,} of {self.size:,}",
                "a header that lies within the file",
            )
        data = self.file.read(count)
        if len(data) != count:
            raise _invalid(self.path, f"the end at byte {self.at + len(data):,}", what)
        self.at += count
        return data

    def number(self, code: str, what: str) -> Any:
        """One number."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def text(self, what: str, limit: int = MAX_HEADER_BYTES) -> str:
        """A string: u64 length and UTF-8 (a tokenizer's may hold stray bytes)."""
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            raise _invalid(self.path, f"{what} of {length:,} bytes", f"at most {limit:,}")
        return self.take(length, what).decode("utf-8", "surrogateescape")

    def value(self, kind: int, what: str, keep: int | None, depth: int = 0) -> Any:
        """One metadata value; arrays longer than ``keep`` are skipped."""
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return self.text(what)
        if kind != _ARRAY or depth > 2:
            raise _invalid(self.path, f"{what} of type {kind}", "a value type from 0 to 12")
        item, count = self.number("I", what), self.number("Q", what)
        if depth == 0:
            self.item = item
        if item in _SCALARS:
            code = _SCALARS[item]
            width = struct.calcsize("<" + code)
            if count > (self.size - self.at) // width:
                raise _invalid(self.path, f"{what} with {count:,} items", "items within the file")
            data = self.take(count * width, what)
            if keep is not None and count > keep:
                return Skipped(count)
            return list(struct.unpack(f"<{count}{code}", data))
        least = 8 if item == _STRING else 12
        if item not in (_STRING, _ARRAY) or count > (self.size - self.at) // least:
            raise _invalid(
                self.path, f"{what}: {count:,} items of type {item}", "items in the file"
            )
        if keep is not None and count > keep:
            for _ in range(count):
                self.value(item, what, 0, depth + 1)
            return Skipped(count)
        return [self.value(item, what, keep, depth + 1) for _ in range(count)]


def read_gguf(path: Path, *, keep_arrays: bool = False) -> GgufFile:
    """Read and check the header of one file; no tensor is read.

    Args:
        path: the file; of a split one, any part.
        keep_arrays: keep long arrays (the vocabulary) too, instead of :class:`Skipped`.

    Raises:
        InvalidFile: truncated, oversized, overlapping, of unknown types or versions, or no GGUF.
        OSError: the file cannot be opened.
    """
    size = path.stat().st_size
    reader = _Reader(path, size)
    try:
        return _read(reader, path, size, None if keep_arrays else 64)
    finally:
        reader.file.close()


def _read(reader: _Reader, path: Path, size: int, keep: int | None) -> GgufFile:
    magic = reader.take(min(4, size), "the magic")
    if magic != b"GGUF":
        raise _invalid(path, f"first bytes {magic!r}", "b'GGUF'", "this is not a GGUF file")
    version = reader.number("I", "the version")
    if version not in (2, 3):
        raise _invalid(path, f"GGUF version {version}", "2 or 3 (little-endian)")
    n_tensors, n_keys = reader.number("q", "tensor count"), reader.number("q", "key count")
    if not 0 <= n_tensors <= MAX_TENSORS or not 0 <= n_keys <= MAX_KEYS:
        raise _invalid(path, f"{n_tensors:,} tensors and {n_keys:,} keys", "plausible counts")
    metadata: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for _ in range(n_keys):
        key = reader.text("a key", MAX_NAME_BYTES)
        if key in metadata:
            raise _invalid(path, f"key {key!r} twice", "each key once")
        kind = reader.number("I", f"the type of {key!r}")
        metadata[key] = reader.value(kind, f"the value of {key!r}", keep)
        kinds[key] = f"[{_KINDS[reader.item]}]" if kind == _ARRAY else _KINDS[kind]
    alignment = metadata.get("general.alignment", 32)
    if (
        not _is_int(alignment)
        or alignment < 1
        or alignment & (alignment - 1)
        or alignment > 1 << 20
    ):
        raise _invalid(path, f"alignment {alignment!r}", "a power of two")
    raw = [_tensor_info(reader, path) for _ in range(n_tensors)]
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in raw:
        if name in tensors:
            raise _invalid(path, f"tensor {name!r} twice", "each tensor once")
        tensors[name] = _tensor(path, name, shape, kind, offset, start, alignment)
    _check_layout(path, tensors, start, size)
    return GgufFile(path, version, metadata, tensors, start, alignment, kinds)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _tensor_info(reader: _Reader, path: Path) -> tuple[str, tuple[int, ...], int, int]:
    name = reader.text("a tensor's name", MAX_NAME_BYTES)
    dims = reader.number("I", f"the dimensions of {name!r}")
    if not 1 <= dims <= 4:
        raise _invalid(path, f"tensor {name!r} of {dims} dimensions", "1 to 4")
    sizes = [reader.number("q", f"the shape of {name!r}") for _ in range(dims)]
    if any(not 0 < s < 2**40 for s in sizes):
        raise _invalid(path, f"tensor {name!r} of shape {sizes}", "positive sizes")
    kind = reader.number("I", f"the type of {name!r}")
    return name, tuple(reversed(sizes)), kind, reader.number("Q", f"the offset of {name!r}")


def _tensor(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    kind: int,
    offset: int,
    start: int,
    alignment: int,
) -> GgufTensor:
    known = GGML_TYPES_BY_ID.get(kind)
    if known is None:
        raise _invalid(path, f"tensor {name!r} of type {kind}", "a known tensor type")
    if shape[-1] % known.block_elements:
        raise _invalid(
            path,
            f"tensor {name!r} with rows of {shape[-1]}",
            f"multiples of {known.block_elements}",
        )
    if offset % alignment:
        raise _invalid(path, f"tensor {name!r} at offset {offset}", f"a multiple of {alignment}")
    return GgufTensor(name, shape, known, start + offset, known.size_bytes(math.prod(shape)))


def _check_layout(path: Path, tensors: Mapping[str, GgufTensor], start: int, size: int) -> None:
    end = start
    for t in sorted(tensors.values(), key=lambda t: t.offset):
        if t.offset < end:
            raise _invalid(path, f"tensor {t.name!r} that overlaps another", "tensors apart")
        end = t.offset + t.size_bytes
        if end > size:
            raise _invalid(
                path, f"a file of {size:,} bytes", f"at least {end:,}, where {t.name!r} ends"
            )


# ------------------------------------------------------------------------------------------ splits

_SPLIT = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def split_parts(path: Path) -> Sequence[Path]:
    """All parts of a split file of which ``path`` is one, in order; else ``[path]``.

    Raises:
        InvalidFile: a part is missing.
    """
    found = _SPLIT.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found["count"])
    parts = [
        path.with_name(f"{found['prefix']}-{n:05d}-of-{count:05d}.gguf")
        for n in range(1, count + 1)
    ]
    missing = [p.name for p in parts if not p.is_file()]
    if missing:
        raise InvalidFile(
            str(path),
            found=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            expected=f"all {count} parts in one folder",
            hint="fetch the missing parts into the same folder",
        )
    return parts


# ------------------------------------------------------------------------------------ architecture


def architecture_from_gguf(file: GgufFile) -> Architecture:
    """The model's numbers, from metadata and tensor shapes.

    Raises:
        UnsupportedArchitecture: it is not a Qwen3.
        InvalidFile: a key is missing or impossible.
    """
    kind = file.metadata.get("general.architecture")
    if kind not in ("qwen3", "qwen3moe"):
        raise UnsupportedArchitecture(
            str(file.path), found=f"architecture {kind!r}", expected="qwen3 or qwen3moe"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise _invalid(file.path, "no token_embd.weight", "the token embedding")
    moe = kind == "qwen3moe"

    def number(key: str) -> int:
        value: Any = file.metadata.get(f"{kind}.{key}")
        if not _is_int(value) or not 0 < value < 2**31:
            raise _invalid(file.path, f"{kind}.{key} = {value!r}", "a positive number")
        return int(value)

    def real(key: str, default: float) -> float:
        value: Any = file.metadata.get(f"{kind}.{key}", default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (math.isfinite(value) and value > 0)
        ):
            raise _invalid(file.path, f"{kind}.{key} = {value!r}", "a positive number")
        return float(f"{value:.7g}")  # stored as f32: 1e-6 comes back as 9.999999974752427e-07

    yarn = file.metadata.get(f"{kind}.rope.scaling.type") == "yarn"
    return Architecture(
        model_type="qwen3_moe" if moe else "qwen3",
        num_hidden_layers=number("block_count"),
        hidden_size=number("embedding_length"),
        num_attention_heads=number("attention.head_count"),
        num_key_value_heads=number("attention.head_count_kv"),
        head_dim=number("attention.key_length"),
        intermediate_size=number("feed_forward_length"),
        vocab_size=embedding.shape[0],
        tie_word_embeddings="output.weight" not in file.tensors,
        max_position_embeddings=number("context_length"),
        rope_theta=real("rope.freq_base", 10_000.0),
        rms_norm_eps=real("attention.layer_norm_rms_epsilon", 1e-6),
        num_experts=number("expert_count") if moe else 0,
        num_experts_per_tok=number("expert_used_count") if moe else 0,
        moe_intermediate_size=number("expert_feed_forward_length") if moe else 0,
        bos_token_id=_token(file, "bos"),
        eos_token_id=_token(file, "eos"),
        yarn_factor=real("rope.scaling.factor", 1.0) if yarn else None,
        yarn_original_context_tokens=number("rope.scaling.original_context_length")
        if yarn
        else None,
    )


def _token(file: GgufFile, which: str) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return value if _is_int(value) else None
