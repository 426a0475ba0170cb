"""A LoRA adapter is a model of its own to clients, and a field or a name to each kind of engine."""

from pathlib import Path
from typing import Any

import pytest
from engine_words import ANSWERS, SAID
from gateway_client import Gateway
from gateway_doubles import END, Engine, Owner, chunked, deployment_of, spec_of

from qwharf.types import DeploymentSpec

KINDS = ("llama.cpp", "vllm", "sglang")
LORAS = {"law": Path("/law"), "tax": Path("/tax")}


def spec(kind: str, **fields: Any) -> DeploymentSpec:
    return spec_of(platform=kind, adapters=LORAS, **fields)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def owner(engine: Engine, kind: str) -> Owner:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    engine.steps = [
        head + b"Transfer-Encoding: chunked\r\n\r\n",
        chunked(ANSWERS[kind]),
        END,
    ]
    return Owner(engine, spec(kind))


HOW: dict[str, dict[str | None, dict[str, Any]]] = {
    "llama.cpp": {
        None: {"model": "pocket", "lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}]},
        "tax": {"model": "pocket", "lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]},
    },
    "vllm": {None: {"model": "pocket"}, "tax": {"model": "tax"}},
    "sglang": {None: {"model": "pocket"}, "tax": {"model": "tax", "lora_path": "tax"}},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("adapter", [None, "tax"])
async def test_an_engine_is_asked_for_the_adapter(
    adapter: str | None, stream: bool, gateway: Gateway, kind: str
) -> None:
    name = adapter or "pocket"
    reply = await gateway.chat(model=name, stream=stream)
    assert reply.status == 200, reply.raw
    told = {k: v for k, v in gateway.engine.body.items() if k in ("model", "lora", "lora_path")}
    assert told == HOW[kind][adapter]
    assert f'"model":"{name}"' in reply.raw.decode().replace('": "', '":"')
    if not stream:
        assert reply.json["choices"][0]["message"]["content"] == SAID


async def test_a_plain_completion_too(gateway: Gateway, kind: str) -> None:
    await gateway.post("/v1/completions", {"model": "tax", "prompt": "a"})
    told = {k: v for k, v in gateway.engine.body.items() if k in ("model", "lora", "lora_path")}
    assert told == HOW[kind]["tax"]


async def test_adapters_are_listed_with_what_they_belong_to(gateway: Gateway) -> None:
    found = (await gateway.ask("GET", "/v1/models")).json["data"]
    assert [(m["id"], m.get("parent")) for m in found] == [
        ("pocket", None),
        ("law", "pocket"),
        ("tax", "pocket"),
    ]
    one = (await gateway.ask("GET", "/v1/models/law")).json
    assert one == found[1]
    assert one["qwharf"]["model"] == "qwen3:test"


async def test_what_is_on_no_deployment_is_unknown(gateway: Gateway, kind: str) -> None:
    reply = await gateway.chat(model="Law")
    assert reply.status == 404
    assert "`pocket`, `law`, `tax`" in reply.error["message"]
    gateway.owner.deployments = [deployment_of(spec(kind), "stopping")]
    assert (await gateway.chat(model="law")).status == 404
