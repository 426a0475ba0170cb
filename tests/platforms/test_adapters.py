"""LoRA adapters by name on real engines: loaded, and told apart by request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import Case, Weights, case_of, installed_ones, runnable
from engine_process import Engine, started

from qwharf import compatibility
from qwharf.errors import InvalidFile
from qwharf.formats.adapter import read_adapter
from qwharf.formats.gguf_adapter import write_gguf_adapter
from qwharf.gateway import engines
from qwharf.gateway.engine_client import naming
from qwharf.gateway.requests import CompletionRequest, Generation
from qwharf.testing import TINY, TINY_MOE, write_synthetic_adapter
from qwharf.types import Architecture

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]
ROUNDING = 0.01
"""A prompt that was seen before is computed in other pieces, which round otherwise."""
ABLE = [p for p in installed_ones() if compatibility.facts(str(p.values[0])).adapters.runs]


def made(arch: Architecture, folder: Path, platform: str = "llama.cpp", **options: Any) -> Path:
    """An adapter, as ``platform`` takes it."""
    write_synthetic_adapter(arch, folder, **options)
    if platform != "llama.cpp":
        return folder
    path = folder.with_suffix(".gguf")
    write_gguf_adapter(read_adapter(folder, arch), arch, path)
    return path


@pytest.fixture(scope="module", params=ABLE)
def case(
    request: pytest.FixtureRequest, weights: Weights, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A deployment with three adapters, of which the third changes nothing that can be seen."""
    plain = runnable(case_of(request.param, weights))
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {
        "law": made(TINY, folder / "law, and order", request.param, alpha=256, seed=1),
        "tax": made(TINY, folder / "tax", request.param, alpha=256, seed=2),
        "nil": made(TINY, folder / "nil", request.param, alpha=1e-6, seed=3),
    }
    return replace(plain, spec=replace(plain.spec, adapters=adapters))


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    case.platform.check(case.spec)
    with started(case.platform, case.spec, tmp_path_factory.mktemp("log") / "log") as engine:
        assert engine.await_ready(), "\n".join(engine.log()[-20:])
        yield engine


def said(engine: Engine, case: Case, adapter: str | None) -> list[float]:
    """How likely the likeliest tokens are after a prompt, asked for as the gateway would."""
    g = Generation(adapter=adapter, temperature=0.0, max_tokens=1, asked=frozenset({"max_tokens"}))
    request = CompletionRequest(prompts=[PROMPT], generation=g, top_logprobs=5)
    wire = engines.of(case.spec).completion(request, case.spec)
    body = {k: v for k, v in wire.bodies[0].items() if not k.startswith("stream")}
    named = naming(wire.model or case.spec.name, json.dumps(body).encode())
    answer = engine.post(wire.path, json.loads(named))
    assert answer.status_code == 200, answer.text
    found = answer.json()["choices"][0]["logprobs"]
    if "content" in found:
        return sorted(top["logprob"] for top in found["content"][0]["top_logprobs"])
    return sorted(found["top_logprobs"][0].values())


@pytest.mark.engines
def test_a_request_gets_the_adapter_that_it_asks_for(engine: Engine, case: Case) -> None:
    """In any order, and with what a slot still has of another one's prompt."""
    order = [None, "law", None, "tax", "law", "nil", "law", "tax", None]
    found = [said(engine, case, adapter) for adapter in order]
    alone = {adapter: found[order.index(adapter)] for adapter in order}
    for one, other in ((None, "law"), (None, "tax"), ("law", "tax")):
        assert alone[one] != pytest.approx(alone[other], abs=10 * ROUNDING), (one, other)
    assert alone[None] == pytest.approx(alone["nil"], abs=ROUNDING)
    for adapter, answer in zip(order, found, strict=True):
        assert answer == pytest.approx(alone[adapter], abs=ROUNDING), adapter


def test_an_adapter_of_another_model_is_refused(weights: Weights, tmp_path: Path) -> None:
    case = case_of("llama.cpp", weights)
    other = made(TINY_MOE, tmp_path / "moe", modules=["q_proj"])
    with pytest.raises(InvalidFile, match="qwen3moe"):
        case.platform.check(replace(case.spec, adapters={"moe": other}))
    peft = write_synthetic_adapter(TINY, tmp_path / "peft")
    with pytest.raises(InvalidFile):
        case.platform.check(replace(case.spec, adapters={"peft": peft}))
