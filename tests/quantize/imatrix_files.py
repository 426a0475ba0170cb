"""Small importance matrices to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qwharf.formats.tensors import gguf_tensors
from qwharf.quantize.imatrix import Entry, Importance, write
from qwharf.quantize.mixing import MIXES
from qwharf.testing import write_synthetic_checkpoint
from qwharf.types import Architecture

try:
    from .golden_cases import CASES
except ImportError:  # from the script that records
    from golden_cases import CASES  # type: ignore[import-not-found, no-redef]

CHUNK = 512


TOKENS = 2 * CHUNK
SEED = 11
SHAPES: dict[str, Architecture] = {
    **CASES,
    "dense-1": replace(CASES["dense"], num_hidden_layers=1),
    "moe-1": replace(CASES["moe"], num_hidden_layers=1, num_experts=2),
}
"""What is recorded; those of one layer for what is slow to make."""
WITHOUT = {"dense": ("blk.3.attn_v.weight",)}
"""Tensors that the matrix of a case lacks and that no quantisation needs it for."""
SLOW = tuple(name for name in MIXES if name.startswith(("iq1", "iq2", "iq3")))


def recorded_keys(case: str) -> list[str]:
    """The quantisations recorded for a case; some also by way of the older form."""
    kept = [
        name
        for name, mix in MIXES.items()
        if name not in ("f32", "f16", "bf16")
        and (name in SLOW) == case.endswith("-1")
        and (mix.experts is None or SHAPES[case].is_moe)
        and (not name.startswith("iq1") or case == "dense-1")
    ]
    return [*kept, f"{'iq2_xs' if case.endswith('-1') else 'q4_k_m'} from .dat"]


def checkpoint(case: str, folder: Path) -> Path:
    """A seeded checkpoint of the case's shape, and its importance matrix in both forms."""
    made = folder / f"Qwen3-{case}"
    write_synthetic_checkpoint(SHAPES[case], made, seed=SEED, vocab="tiny", chat_template="{{ 1 }}")
    matrix = importance(SHAPES[case], SEED, WITHOUT.get(case, ()))
    write(matrix, folder / f"{case}.gguf", "gguf")
    write(matrix, folder / f"{case}.dat", "dat")
    return made


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
