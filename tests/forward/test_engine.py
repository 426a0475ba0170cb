"""Against llama.cpp: the embedded engine's probabilities of every token of the vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_process import Engine, spec_of, started
from models_at_hand import MOE, POCKET

from qwharf import forward, platforms, texts
from qwharf.artifacts.convert import convert
from qwharf.formats.gguf import architecture_from_gguf, read_gguf
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.platforms import is_child
from qwharf.types import Format


def probabilities(engine: Engine, prompt: list[int], vocabulary: int) -> Any:
    """The engine's log-probabilities of the token after ``prompt``, by id."""
    body = {"prompt": prompt, "n_predict": 1, "n_probs": vocabulary, "cache_prompt": False}
    body |= {"temperature": 0}  # a drawn end token would come without probabilities
    answer = engine.post("/completion", body)
    assert answer.status_code == 200, answer.text
    out = np.full(vocabulary, -np.inf)
    for entry in answer.json()["completion_probabilities"][0]["top_logprobs"]:
        out[entry["id"]] = entry["logprob"]
    return out


def own(path: Path, prompt: list[int]) -> Any:
    (made,) = forward.logits(path, [prompt])
    last = made[-1].astype(np.float64)
    return last - last.max() - np.log(np.exp(last - last.max()).sum())


def compare(source: Path, format: Format, prompts: list[list[int]], folder: Path) -> float:
    """The largest difference among the tokens that both take for possible."""
    model = folder / "model.gguf"
    convert(source, format, model, threads=1)
    arch = architecture_from_gguf(read_gguf(model))
    platform = platforms.get("llama.cpp")
    assert is_child(platform)
    spec = spec_of(model, architecture=arch, format=format, context_tokens=256)
    worst = 0.0
    with started(platform, spec, folder / "log") as engine:
        assert engine.await_ready()
        for prompt in prompts:
            theirs, ours = probabilities(engine, prompt, arch.vocab_size), own(model, prompt)
            likely = ours > -12
            assert theirs.argmax() == ours.argmax()
            worst = max(worst, float(np.abs(theirs - ours)[likely].max()))
    return worst


@pytest.mark.engines
def test_the_pocket_model(tmp_path: Path) -> None:
    tokens = load_tokenizer(POCKET).encode(texts.text("evaluation")[:2000])
    prompts = [tokens[:n] for n in (1, 17, 200)]
    assert compare(POCKET, Format("gguf", "f32"), prompts, tmp_path) < 0.02


@pytest.mark.engines
def test_a_mixture_of_experts(moe: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, MOE.vocab_size, n).tolist() for n in (2, 60)]
    assert compare(moe, Format("gguf", "f32"), prompts, tmp_path) < 0.02
