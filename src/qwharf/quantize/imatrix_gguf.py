"""The GGUF form of an importance matrix, which ``llama-imatrix`` writes today.

Per weight matrix two F32 tensors, ``NAME.in_sum2`` [experts, columns] and ``NAME.counts``
[experts, 1], in the order of the names; and the keys ``imatrix.datasets``, ``imatrix.chunk_count``
and ``imatrix.chunk_size``. Source: llama.cpp ``tools/imatrix/imatrix.cpp`` (``save_imatrix``),
``common/imatrix-loader.cpp``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf import GgufFile, read_gguf
from qwharf.formats.gguf_writer import GgufWriter
from qwharf.quantize.imatrix import MAX_VALUES, Entry, Importance, checked, refused

SUMS, COUNTS = ".in_sum2", ".counts"
MAX_COUNT = 2.0**53


def read_gguf_form(path: Path) -> Importance:
    """Read a file.

    Raises:
        InvalidFile: not an importance matrix, or a damaged one; names the tensor.
        StorageError: it may not be read.
    """
    file = read_gguf(path)
    names = [n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)]
    lonely = {n.removesuffix(COUNTS) for n in file.tensors if n.endswith(COUNTS)} ^ set(names)
    if lonely or not names:
        what = f"{min(lonely)!r:.200} without sums or without counts" if lonely else "no sums"
        raise refused(str(path), what, f"pairs of tensors, NAME{SUMS} and NAME{COUNTS}")
    total = sum(math.prod(file.tensors[n + SUMS].shape) for n in names)
    if total > MAX_VALUES:
        raise refused(str(path), f"{total:,} numbers", f"at most {MAX_VALUES:,}")
    datasets = file.metadata.get("imatrix.datasets")
    return checked(
        Importance(
            entries={name: _entry(file, name) for name in sorted(names)},
            chunks=_number(file, "imatrix.chunk_count"),
            chunk_tokens=_number(file, "imatrix.chunk_size") or 512,
            datasets=tuple(map(str, datasets)) if isinstance(datasets, list) else (),
            source=str(path),
        )
    )


def _number(file: GgufFile, key: str) -> int:
    value = file.metadata.get(key)
    if type(value) is not int or not 0 <= value < 1 << 32:
        found = f"no {key}" if value is None else f"{key} = {value!r:.40}"
        raise refused(str(file.path), found, "the keys of an importance matrix")
    return value


def _entry(file: GgufFile, name: str) -> Entry:
    counts = _values(file, name + COUNTS)
    sums = _values(file, name + SUMS)
    if len(sums) % len(counts):
        raise refused(
            str(file.path),
            f"{len(sums):,} sums and {len(counts):,} counts for {name!r:.200}",
            "one count for each row of sums",
        )
    if not (np.isfinite(counts).all() and counts.min() >= 0 and counts.max() < MAX_COUNT):
        raise refused(str(file.path), f"an impossible count for {name!r:.200}", "numbers of tokens")
    whole = np.floor(counts.astype(np.float64) + 0.5).astype(np.int64)
    return Entry(sums.reshape(len(counts), -1), whole)


def _values(file: GgufFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensors[name]
    if tensor.type.name != "F32":
        raise refused(str(file.path), f"{name!r:.200} as {tensor.type.name}", "F32")
    out = bytearray()
    for piece in file.chunks(name):
        out += piece
    return np.frombuffer(out, "<f4").astype(np.float32, copy=False)


def write_gguf_form(importance: Importance, path: Path) -> None:
    """Write a file; see :func:`qwharf.quantize.imatrix.write`."""
    metadata: dict[str, tuple[str, Any]] = {
        "general.type": ("str", "imatrix"),
        "imatrix.datasets": ("[str]", list(importance.datasets)),
        "imatrix.chunk_count": ("u32", importance.chunks),
        "imatrix.chunk_size": ("u32", importance.chunk_tokens),
    }
    f32 = GGML_TYPES["F32"]
    entries = sorted(importance.entries.items())
    tensors = []
    for name, entry in entries:
        experts, columns = entry.sums.shape
        stack = (experts,) if experts > 1 else ()  # a last dimension of one is not written
        tensors.append((name + SUMS, (*stack, columns), f32))
        tensors.append((name + COUNTS, (*stack, 1), f32))
    with GgufWriter(path, metadata, tensors) as writer:
        for _, entry in entries:
            writer.write(np.ascontiguousarray(entry.sums, "<f4").data)
            writer.write(np.ascontiguousarray(entry.counts, "<f4").data)
