"""The server around mlx-lm's server, on the real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import case_of, runnable
from engine_process import Engine, started

from qwharf import engines
from qwharf.artifacts.convert import convert
from qwharf.errors import QwharfError
from qwharf.platforms.mlx import CHILD, Mlx
from qwharf.testing import TINY_MOE
from qwharf.types import DeploymentSpec, Format
from qwharf.verify import Reference

PLATFORM = Mlx()
pytestmark = [pytest.mark.engines, pytest.mark.platforms]


@pytest.fixture(scope="module")
def here(weights: Any) -> DeploymentSpec:
    return runnable(case_of("mlx", weights)).spec


@pytest.fixture(scope="module")
def engine(here: DeploymentSpec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with started(PLATFORM, here, tmp_path_factory.mktemp("log") / "log") as engine:
        assert engine.await_ready(), engine.log()
        yield engine


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


def test_it_shows_the_tokens_of_a_conversation(engine: Engine, here: DeploymentSpec) -> None:
    messages = [{"role": "user", "content": "Grüße, 你好"}]
    reference = Reference.load(here.artifact_path)
    for thinking in (True, False):
        asked = {"messages": messages, "chat_template_kwargs": {"enable_thinking": thinking}}
        told = engine.post("/tokenize", asked).json()
        assert told["tokens"] == reference.tokens(messages, enable_thinking=thinking)
        assert told["count"] == len(told["tokens"])
    assert engine.post("/tokenize", {"messages": "x"}).status_code == 400
    assert engine.post("/tokenize", {"messages": [{"role": "x", "content": 5}]}).status_code == 400


def test_answers_end_with_the_context(engine: Engine, here: DeploymentSpec) -> None:
    """700 tokens: a prompt of about 600 leaves room for less than the answer asked for."""
    usage = engine.chat("x" * 600, max_tokens=5000, temperature=0)["usage"]
    assert usage["total_tokens"] <= here.context_tokens


@pytest.mark.parametrize("seed", [None, 1])
def test_what_was_said_can_be_gone_on_with(engine: Engine, seed: int | None) -> None:
    """The whole prompt is then the one that was kept."""
    wishes = {"model": "tiny", "max_tokens": 5, "temperature": 0, "seed": seed}

    def more(text: str) -> str:
        answer = engine.post("/v1/completions", {"prompt": text, **wishes})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    text = f"the {seed} "
    for _ in range(3):
        text += more(text)


def test_nothing_is_fetched_that_a_request_names(engine: Engine) -> None:
    part = {"type": "image_url", "image_url": {"url": engine.url + "/health"}}
    asked = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    engine.post("/v1/chat/completions", asked)
    assert not [line for line in engine.log() if "GET /health" in line]


def test_it_ends_when_its_stdin_does(here: DeploymentSpec, tmp_path: Path) -> None:
    with started(PLATFORM, here, tmp_path / "log") as engine:
        assert engine.await_ready()
        assert engine.process.stdin is not None
        engine.process.stdin.close()
        assert engine.await_end() == 0


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


def test_a_mixture_of_experts_serves(here: DeploymentSpec, moe_gguf: Path, tmp_path: Path) -> None:
    folder = moe_gguf.parent / "checkpoint"
    spec = replace(here, architecture=TINY_MOE, artifact_path=folder, context_tokens=4096)
    PLATFORM.check(spec)
    with started(PLATFORM, spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        assert engine.chat("the")["choices"]


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


PRODUCTS = """
import importlib.util, json, sys
import mlx.core as mx
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.suit_processor(mx)
mx.random.seed(1)
x, w = mx.random.normal((3, 1, 128)), mx.random.normal((4, 32, 128))
experts = mx.array([0, 3, 1])
told = {}
for name in ("bfloat16", "float16", "float32"):
    given = x.astype(getattr(mx, name))
    q = mx.quantize(w.astype(given.dtype), 64, 8)
    whole = mx.dequantize(q[0], *(a.astype(mx.float32) for a in q[1:]), 64, 8)
    right = given.astype(mx.float32) @ whole[experts].swapaxes(1, 2)
    found = [
        mx.gather_qmm(given, *q, rhs_indices=experts, group_size=64, bits=8),
        mx.stack([
            mx.quantized_matmul(one, *(a[e] for a in q), True, 64, 8)
            for one, e in zip(given, experts.tolist())
        ]),
    ]
    plain = w.astype(given.dtype)
    exact = given.astype(mx.float32) @ plain[experts].astype(mx.float32).swapaxes(1, 2)
    made = mx.gather_mm(given, plain.swapaxes(1, 2), rhs_indices=experts)
    off = [mx.abs(f.astype(mx.float32) - right).max() / mx.abs(right).max() for f in found]
    off.append(mx.abs(made.astype(mx.float32) - exact).max() / mx.abs(exact).max())
    told[name] = [[str(f.dtype) for f in found], [o.item() for o in off]]
print(json.dumps(told))
"""


def test_products_are_as_exact_as_their_type(here: DeploymentSpec) -> None:
    """MLX's own with quantised weights, which add up in 16 bits, are about ten times further off;
    with those of experts in 16 bits it has none for processors.
    """
    found = engines.find("mlx")
    assert found is not None
    done = subprocess.run(
        [str(found.python), "-c", PRODUCTS, str(CHILD)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name, (types, off) in json.loads(done.stdout).items():
        assert types == [f"mlx.core.{name}"] * 2
        assert max(off) <= {"bfloat16": 2**-8, "float16": 2**-11, "float32": 1e-6}[name], name
