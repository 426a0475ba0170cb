"""Importance matrices of our own, against sums by hand and against ``llama-imatrix``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_at_hand import MOE, POCKET

from qwharf import forward
from qwharf.errors import UsageError
from qwharf.formats.tensors import gguf_tensors
from qwharf.forward.importance import chunked, importance_of

CHUNKS = [[5, 6, 7, 8, 9] * 4, [30, 2, 11, 4] * 5]


def test_only_whole_chunks_are_read() -> None:
    assert chunked(list(range(7)), 3) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UsageError, match="2 tokens"):
        chunked([1, 2], 3)


def test_squares_are_summed_for_every_matrix_of_a_layer() -> None:
    seen: dict[str, Any] = {}

    def tap(names: Sequence[str], inputs: Any, expert: int | None) -> None:
        assert expert is None
        for name in names:
            seen.setdefault(name, []).append(inputs.astype(np.float64))

    forward.walk(POCKET, CHUNKS, tap)
    made = importance_of(POCKET, CHUNKS, dataset="by hand")
    arch = forward.architecture_of(POCKET)
    wanted = {s.name for s in gguf_tensors(arch) if s.role in ("attention", "ffn")}
    assert set(made.entries) == set(seen) == wanted
    for name, entry in made.entries.items():
        sums = np.square(np.concatenate(seen[name])).sum(axis=0)
        assert np.allclose(entry.sums, sums[None], rtol=1e-6)
        assert entry.counts.tolist() == [40]
    assert (made.chunks, made.chunk_tokens, made.datasets) == (2, 20, ("by hand",))


def test_experts_are_counted_apart(moe: Path) -> None:
    made = importance_of(moe, CHUNKS)
    wanted = {
        s.name: (s.shape[0] if s.role == "expert" else 1, s.shape[-1])
        for s in gguf_tensors(MOE)
        if s.role in ("attention", "expert", "router")
    }
    assert {n: e.sums.shape for n, e in made.entries.items()} == wanted
    for layer in range(MOE.num_hidden_layers):
        gate, up, down = (
            made.entries[f"blk.{layer}.ffn_{kind}_exps.weight"] for kind in ("gate", "up", "down")
        )
        router = made.entries[f"blk.{layer}.ffn_gate_inp.weight"]
        assert gate.counts.tolist() == up.counts.tolist() == down.counts.tolist()
        assert gate.counts.sum() == 40 * MOE.num_experts_per_tok
        assert np.array_equal(gate.sums, up.sums)
        # Every token went to two experts, so what they saw adds up to twice what the router saw.
        assert np.allclose(gate.sums.sum(axis=0), 2 * router.sums[0], rtol=1e-5)


def test_groups_of_chunks_add_up(moe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importance_of(moe, CHUNKS)
    monkeypatch.setattr(forward, "ACTIVATION_BYTES", 1)
    parts = importance_of(moe, CHUNKS)
    for name, entry in whole.entries.items():
        assert np.allclose(entry.sums, parts.entries[name].sums, rtol=1e-5)
        assert np.array_equal(entry.counts, parts.entries[name].counts)
