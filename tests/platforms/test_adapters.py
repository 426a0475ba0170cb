"""LoRA adapters by name on the engine that is always here: loaded, and told apart by request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import Weights, case_of
from engine_process import Engine, started

from qwharf.errors import InvalidFile
from qwharf.formats.adapter import read_adapter
from qwharf.formats.gguf_adapter import write_gguf_adapter
from qwharf.gateway import engines
from qwharf.gateway.requests import CompletionRequest, Generation
from qwharf.testing import TINY, TINY_MOE, write_synthetic_adapter
from qwharf.types import Architecture, DeploymentSpec

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]
ROUNDING = 0.01
"""A prompt that was seen before is computed in other pieces, which round otherwise."""


def made(arch: Architecture, folder: Path, **options: Any) -> Path:
    """An adapter that changes what the tiny model says, as a file."""
    write_synthetic_adapter(arch, folder, **options)
    path = folder.with_suffix(".gguf")
    write_gguf_adapter(read_adapter(folder, arch), arch, path)
    return path


@pytest.fixture(scope="module")
def spec(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> DeploymentSpec:
    folder = tmp_path_factory.mktemp("adapters")
    law = made(TINY, folder / "law, and order", alpha=256, seed=1)
    tax = made(TINY, folder / "tax", alpha=256, seed=2)
    return replace(case_of("llama.cpp", weights).spec, adapters={"law": law, "tax": tax})


@pytest.fixture(scope="module")
def engine(spec: DeploymentSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    platform = case_of("llama.cpp", lambda format: spec.artifact_path).platform
    platform.check(spec)
    with started(platform, spec, tmp_path_factory.mktemp("log") / "engine.log") as engine:
        assert engine.await_ready(), "\n".join(engine.log()[-20:])
        yield engine


def said(engine: Engine, spec: DeploymentSpec, adapter: str | None) -> list[float]:
    """The likeliest tokens' log probabilities after a prompt, as the gateway would ask."""
    g = Generation(adapter=adapter, temperature=0.0, max_tokens=1)
    request = CompletionRequest(prompts=[PROMPT], generation=g, top_logprobs=5)
    wire = engines.of(spec).completion(request, spec)
    (body,) = wire.bodies
    answer = engine.post(wire.path, {**body, "stream": False})
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return [top["logprob"] for top in choice["logprobs"]["content"][0]["top_logprobs"]]


@pytest.mark.engines
def test_a_request_gets_the_adapter_that_it_asks_for(engine: Engine, spec: DeploymentSpec) -> None:
    """In any order, and with what a slot still has of another one's prompt."""
    order = [None, "law", None, "tax", "law", "law", "tax", None]
    found = [said(engine, spec, adapter) for adapter in order]
    alone = {adapter: found[order.index(adapter)] for adapter in order}
    for one, other in ((None, "law"), (None, "tax"), ("law", "tax")):
        assert alone[one] != pytest.approx(alone[other], abs=10 * ROUNDING), (one, other)
    for adapter, answer in zip(order, found, strict=True):
        assert answer == pytest.approx(alone[adapter], abs=ROUNDING), adapter


@pytest.mark.engines
def test_an_adapter_of_nothing_changes_nothing(
    engine: Engine, spec: DeploymentSpec, tmp_path: Path
) -> None:
    small = made(TINY, tmp_path / "small", alpha=1e-6)
    platform = case_of("llama.cpp", lambda format: spec.artifact_path).platform
    other = replace(spec, adapters={"small": small})
    with started(platform, other, tmp_path / "engine.log") as second:
        assert second.await_ready(), "\n".join(second.log()[-20:])
        assert said(second, other, "small") == pytest.approx(said(engine, spec, None), abs=ROUNDING)


def test_an_adapter_of_another_model_is_refused(spec: DeploymentSpec, tmp_path: Path) -> None:
    platform = case_of("llama.cpp", lambda format: spec.artifact_path).platform
    other = made(TINY_MOE, tmp_path / "moe", modules=["q_proj"])
    with pytest.raises(InvalidFile, match="qwen3moe"):
        platform.check(replace(spec, adapters={"moe": other}))
    peft = write_synthetic_adapter(TINY, tmp_path / "peft")
    with pytest.raises(InvalidFile):
        platform.check(replace(spec, adapters={"peft": peft}))
