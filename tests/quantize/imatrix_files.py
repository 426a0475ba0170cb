"""Small importance matrices to test with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qwharf.formats.tensors import gguf_tensors
from qwharf.quantize.imatrix import Entry, Importance
from qwharf.types import Architecture

CHUNK = 512


TOKENS = 2 * CHUNK


def entry(rng: np.random.Generator, experts: int, columns: int) -> Entry:
    """Sums over :data:`TOKENS`; of a stack, the second expert saw nothing."""
    counts = np.full(experts, TOKENS, np.int64)
    if experts > 1:
        counts = rng.integers(1, TOKENS, experts)
        counts[1] = 0
    columns_differ = np.exp(rng.normal(size=(experts, columns)) * 1.5)
    sums = (columns_differ * counts[:, None]).astype(np.float32)
    return Entry(sums, counts)


def importance(arch: Architecture, seed: int, without: Sequence[str] = ()) -> Importance:
    """What a text might give for a model of that shape: for every matrix of its layers."""
    rng = np.random.default_rng(seed)
    entries = {}
    for spec in gguf_tensors(arch):
        if spec.role in ("attention", "ffn", "expert") and spec.name not in without:
            experts = spec.shape[0] if len(spec.shape) == 3 else 1
            entries[spec.name] = entry(rng, experts, spec.shape[-1])
    return Importance(
        entries=entries, chunks=2, chunk_tokens=CHUNK, datasets=("seeded.txt",), source="seeded"
    )
