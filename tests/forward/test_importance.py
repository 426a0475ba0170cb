"""Importance matrices of our own, against sums by hand and against ``llama-imatrix``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models_at_hand import CHUNK, MOE, POCKET, TEXT

from qwharf import forward
from qwharf.errors import UsageError
from qwharf.formats.tensors import gguf_tensors
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.forward.importance import chunked, importance_of
from qwharf.quantize.imatrix import Importance, read, write

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


# -------------------------------------------------------------------------- against llama-imatrix

GOLDEN = Path(__file__).parents[1] / "quantize/golden/imatrix"


def ours(model: Path) -> Importance:
    tokens = load_tokenizer(model).encode(TEXT.removesuffix("\n"))
    return importance_of(model, chunked(tokens, CHUNK), dataset="text.txt")


@pytest.mark.parametrize("name", ["dense", "moe"])
def test_as_llama_imatrix_collects_it(name: str, request: pytest.FixtureRequest) -> None:
    """Sums differ by rounding: llama.cpp adds up float32, and multiplies in another order."""
    made = ours(request.getfixturevalue(name))
    recorded = read(GOLDEN / f"{name}.gguf")
    assert (made.chunks, made.chunk_tokens) == (recorded.chunks, recorded.chunk_tokens)
    assert made.datasets == recorded.datasets
    assert made.entries.keys() == recorded.entries.keys()
    for tensor, entry in recorded.entries.items():
        assert np.array_equal(made.entries[tensor].counts, entry.counts), tensor
        assert np.allclose(made.entries[tensor].sums, entry.sums, rtol=2e-5), tensor


@pytest.mark.parametrize("name", ["dense", "moe"])
def test_files_are_written_as_llama_imatrix_does(name: str, tmp_path: Path) -> None:
    for form in ("gguf", "dat"):
        write(read(GOLDEN / f"{name}.gguf"), tmp_path / "made", form)  # type: ignore[arg-type]
        assert (tmp_path / "made").read_bytes() == (GOLDEN / f"{name}.{form}").read_bytes()


@pytest.mark.parametrize("name", ["dense", "moe"])
def test_the_older_form_means_the_same(name: str) -> None:
    newer, older = read(GOLDEN / f"{name}.gguf"), read(GOLDEN / f"{name}.dat")
    for tensor, entry in newer.entries.items():
        weights = older.weights(tensor, *entry.sums.shape)
        assert weights is not None
        assert np.allclose(weights, entry.means(), rtol=3e-7), tensor
