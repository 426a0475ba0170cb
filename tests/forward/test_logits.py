"""The whole pass: what it must have in common with any Qwen3, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from models_at_hand import MOE, POCKET

from qwharf import forward, texts
from qwharf.artifacts.convert import convert
from qwharf.errors import InvalidFile, UsageError
from qwharf.formats.safetensors import read_safetensors
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.types import Format


def text_tokens(count: int) -> list[int]:
    return load_tokenizer(POCKET).encode(texts.text("evaluation")[: 8 * count])[:count]


def test_the_pocket_model_knows_its_capital() -> None:
    tokenizer = load_tokenizer(POCKET)
    ids = tokenizer.encode(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    start = len(ids)
    for _ in range(12):
        (made,) = forward.logits(POCKET, [ids])
        ids.append(int(made[-1].argmax()))
    assert "Paris" in tokenizer.decode(ids[start:])


def test_no_token_sees_what_follows() -> None:
    tokens = text_tokens(40)
    whole, part = forward.logits(POCKET, [tokens, tokens[:25]])
    assert whole.shape == (40, forward.architecture_of(POCKET).vocab_size)
    assert np.allclose(whole[:25], part, atol=1e-3)


def test_chunks_are_computed_apart_however_they_are_grouped(
    moe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    chunks = [rng.integers(0, MOE.vocab_size, n).tolist() for n in (3, 9, 1, 6)]
    together = list(forward.logits(moe, chunks))
    monkeypatch.setattr(forward, "ACTIVATION_BYTES", 1)
    apart = list(forward.logits(moe, chunks))
    alone = [next(forward.logits(moe, [c])) for c in chunks]
    for a, b, c in zip(together, apart, alone, strict=True):
        assert np.allclose(a, b, atol=1e-4)
        assert np.allclose(b, c, atol=1e-4)


@pytest.mark.parametrize(("target", "worst"), [("bf16", 0.0), ("q8_0", 0.5), ("q4_k_m", 8.0)])
def test_a_gguf_of_the_same_weights_gives_nearly_the_same(
    tmp_path: Path, target: str, worst: float
) -> None:
    tokens = [text_tokens(24)]
    convert(POCKET, Format("gguf", target), tmp_path / "model.gguf", threads=1)
    (own,) = forward.logits(POCKET, tokens)
    (made,) = forward.logits(tmp_path / "model.gguf", tokens)
    difference = float(np.abs(own - made).max())
    assert difference <= worst
    assert (difference == 0) == (worst == 0)


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[str, int, int]] = []
    chunks = [text_tokens(4)]
    list(forward.logits(POCKET, chunks, progress=lambda *step: seen.append(step)))
    done = [s[1] for s in seen]
    assert done == sorted(done)
    assert seen[-1][1] == seen[-1][2] > 0


@pytest.mark.parametrize("chunks", [[[]], [[1], [1 << 20]], [[-1]]])
def test_tokens_that_cannot_be(chunks: list[list[int]]) -> None:
    with pytest.raises(UsageError, match="chunk"):
        next(forward.logits(POCKET, chunks))


def test_weights_that_diverged_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(POCKET, folder)
    weights = folder / "model.safetensors"
    entry = read_safetensors(weights).tensors["model.layers.2.mlp.down_proj.weight"]
    data = bytearray(weights.read_bytes())
    data[entry.offset : entry.offset + 2] = b"\xc0\x7f"  # a NaN
    weights.write_bytes(data)
    with pytest.raises(InvalidFile) as caught:
        next(forward.logits(folder, [[1, 2, 3]]))
    assert caught.value.facts["layer"] == 2
