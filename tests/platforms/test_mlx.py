"""What is peculiar to mlx-lm: the server around its server, on the real engine where it is here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import case_of, runnable
from engine_homes import install
from engine_process import Engine, spec_of, started

from qwharf.artifacts.convert import convert
from qwharf.errors import QwharfError
from qwharf.platforms.mlx import Mlx
from qwharf.testing import TINY, TINY_MOE
from qwharf.types import DeploymentSpec, Format

PLATFORM = Mlx()
BF16 = Format("safetensors", "bf16")


def tiny(tiny_gguf: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {"platform": "mlx", "format": BF16, "kv_cache_type": "bf16"}
    return spec_of(tiny_gguf.parent / "checkpoint", **wishes | fields)


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"format": Format("gguf", "q8_0")}, "gguf:q8_0"),
        ({"format": Format("safetensors", "awq")}, "safetensors:awq"),
        ({"kv_cache_type": "fp8"}, "fp8"),
        ({"kv_cache_type": "q8_0", "parallel": 2}, "2 with a cache of 8 bits"),
        ({"gpus": 2}, "2"),
        ({"adapters": {"law": Path("/law")}}, "law"),
    ],
)
def test_what_it_cannot_do_is_refused(
    fields: dict[str, Any],
    found: str,
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, tmp_path, "mlx", "0.32.2", "cpu")
    PLATFORM.check(tiny(tiny_gguf))
    with pytest.raises(QwharfError) as e:
        PLATFORM.check(tiny(tiny_gguf, **fields))
    assert found in e.value.found
    assert e.value.hint


# ------------------------------------------------------------------------------------ serving


@pytest.fixture(scope="module")
def here(weights: Any) -> DeploymentSpec:
    return runnable(case_of("mlx", weights)).spec


@pytest.fixture(scope="module")
def engine(here: DeploymentSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started(PLATFORM, here, tmp_path_factory.mktemp("log") / "log") as engine:
        assert engine.await_ready(), engine.log()
        yield engine


@pytest.mark.engines
def test_it_serves_its_model_and_no_other(engine: Engine) -> None:
    assert [m["id"] for m in engine.get("/v1/models").json()["data"]] == ["tiny"]
    for body in (
        {"model": "Qwen/Qwen3-0.6B"},
        {"model": "/etc"},
        {"model": "tiny", "adapters": "/etc"},
        {"model": "tiny", "draft_model": "Qwen/Qwen3-0.6B"},
    ):
        asked = {"messages": [{"role": "user", "content": "the"}], "max_tokens": 1, **body}
        refused = engine.post("/v1/chat/completions", asked)
        assert refused.status_code == 404
        assert "does not exist" in refused.json()["error"]
    assert engine.chat("the", model="tiny")["choices"]
    assert engine.chat("the")["choices"]  # no name: the only one there is


@pytest.mark.engines
def test_answers_end_with_the_context(engine: Engine, here: DeploymentSpec) -> None:
    """700 tokens: a prompt of about 600 leaves room for less than the answer asked for."""
    usage = engine.chat("x" * 600, max_tokens=5000, temperature=0)["usage"]
    assert usage["total_tokens"] <= here.context_tokens


@pytest.mark.engines
def test_nothing_is_fetched_that_a_request_names(engine: Engine) -> None:
    part = {"type": "image_url", "image_url": {"url": engine.url + "/health"}}
    asked = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    engine.post("/v1/chat/completions", asked)
    assert not [line for line in engine.log() if "GET /health" in line]


@pytest.mark.engines
def test_it_ends_when_its_stdin_does(here: DeploymentSpec, tmp_path: Path) -> None:
    with started(PLATFORM, here, tmp_path / "log") as engine:
        assert engine.await_ready()
        assert engine.process.stdin is not None
        engine.process.stdin.close()
        assert engine.await_end() == 0


@pytest.mark.engines
@pytest.mark.parametrize(
    "fields",
    [
        {"context_tokens": 4096},  # beyond the tiny model's 2,048: stretched
        {"kv_cache_type": "q8_0"},
        {"kv_cache_type": "q4_0"},
        {"format": Format("mlx", "4bit")},
        {"format": Format("mlx", "8bit"), "parallel": 3},
    ],
    ids=str,
)
def test_it_serves(fields: dict[str, Any], here: DeploymentSpec, tmp_path: Path) -> None:
    spec = replace(here, **fields)
    if spec.format.container == "mlx":
        spec = replace(spec, artifact_path=tmp_path / "weights")
        convert(here.artifact_path, spec.format, spec.artifact_path, threads=1)
    PLATFORM.check(spec)
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        usage = engine.chat("x" * 500, model="tiny")["usage"]
        assert usage["prompt_tokens"] > 500
        applied = PLATFORM.applied(engine.log())
    assert applied.context_tokens == spec.context_tokens
    whole = sum(p.stat().st_size for p in spec.artifact_path.glob("*.safetensors"))
    assert applied.weights_bytes == pytest.approx(whole, rel=0.15)


@pytest.mark.engines
def test_a_mixture_of_experts_serves(here: DeploymentSpec, moe_gguf: Path, tmp_path: Path) -> None:
    folder = moe_gguf.parent / "checkpoint"
    spec = replace(here, architecture=TINY_MOE, artifact_path=folder, context_tokens=4096)
    PLATFORM.check(spec)
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        assert engine.chat("the")["choices"]


@pytest.mark.engines
def test_a_failed_start_ends_and_is_explained(here: DeploymentSpec, tmp_path: Path) -> None:
    """mlx_lm.server alone would call itself healthy, and live on."""
    folder = shutil.copytree(here.artifact_path, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    spec = replace(here, artifact_path=folder)
    with pytest.raises(QwharfError):
        PLATFORM.check(spec)
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        assert engine.await_end() == 1
        why = PLATFORM.explain(engine.log(), 1)
    assert "safetensors" in why
    assert "\n" not in why


def test_its_shape_is_stretched_by_the_least_factor(tiny_gguf: Path) -> None:
    spec = tiny(tiny_gguf, context_tokens=4096, architecture=TINY)
    argv = PLATFORM.launch(spec, 1).argv
    told = argv[argv.index("--rope-scaling") + 1]
    assert '"factor": 2.0' in told
    assert '"original_max_position_embeddings": 2048' in told
    assert "--rope-scaling" not in PLATFORM.launch(replace(spec, context_tokens=2048), 1).argv
