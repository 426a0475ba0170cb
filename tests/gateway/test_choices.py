"""Several choices: as many requests, one answer."""

import asyncio
import json
from typing import Any

from gateway_client import Gateway
from gateway_doubles import (
    ABORT,
    DONE,
    FRAME,
    SSE,
    UNTIL_GONE,
    USAGE,
    Step,
    answer,
    chunk,
    chunked,
    delta,
    event,
    refusal,
)


def streamed(body: dict[str, Any]) -> list[Step]:
    """A reply that says its seed, and counts its tokens if asked."""
    frame = FRAME | {"id": f"id-{body.get('seed')}"}
    last = {"choices": [], "usage": USAGE, "timings": {}} if "stream_options" in body else None
    events = [
        *(chunk({"content": text}) for text in (f"{body.get('seed')}", "ü")),
        ":\n\n",
        chunk({}, "stop"),
        *([event(last | frame)] if last else []),
        DONE,
    ]
    return [SSE, *(part for e in events for part in (chunked(e), 0.01)), chunked(b"")]


async def test_whole_answers_become_one(gateway: Gateway) -> None:
    gateway.engine.script = streamed
    reply = (await gateway.chat(n=3, seed=40)).json
    texts = [(c["index"], c["message"]["content"]) for c in reply["choices"]]
    assert texts == [(0, "40ü"), (1, "41ü"), (2, "42ü")]
    assert reply["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
    assert "timings" not in reply
    assert len(gateway.engine.heard) == 3
    assert all("n" not in h.body for h in gateway.engine.heard)


async def test_without_a_seed_none_is_made_up(gateway: Gateway) -> None:
    assert (await gateway.chat(n=2)).status == 200
    assert all("seed" not in h.body for h in gateway.engine.heard)


def events(raw: bytes) -> list[dict[str, Any]]:
    text = raw.decode()
    assert text.endswith(DONE) and text.count(DONE) == 1
    blocks = text.removesuffix(DONE).split("\n\n")[:-1]
    return [json.loads(b.removeprefix("data: ")) for b in blocks if b != ":"]


async def test_streams_become_one(gateway: Gateway) -> None:
    gateway.engine.script = streamed
    usage = {"include_usage": True}
    found = events((await gateway.chat(n=3, seed=5, stream=True, stream_options=usage)).raw)
    texts = ["", "", ""]
    for part in found[:-1]:
        (choice,) = part["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["5ü", "6ü", "7ü"]
    assert len({e["id"] for e in found}) == 1
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 9
    found = events((await gateway.chat(n=2, seed=5, stream=True)).raw)
    assert not any("usage" in e for e in found)


async def test_prompts_are_counted_each_and_once(gateway: Gateway) -> None:
    gateway.engine.script = streamed
    body = {"model": "pocket", "prompt": ["a", "b"], "n": 2, "seed": 1}
    reply = (await gateway.post("/v1/completions", body)).json
    assert [c["index"] for c in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"] == {"prompt_tokens": 14, "completion_tokens": 12, "total_tokens": 26}


async def test_one_refusal_refuses_all_and_ends_the_rest(gateway: Gateway) -> None:
    def second_refused(body: dict[str, Any]) -> list[Step]:
        return [refusal(400, "no", "x")] if body["seed"] == 2 else [UNTIL_GONE]

    gateway.engine.script = second_refused
    for stream in (False, True):
        gateway.engine.heard.clear()
        reply = await gateway.chat(n=3, seed=1, stream=stream)
        assert (reply.status, reply.message) == (400, "no")
        for heard in gateway.engine.heard:
            if heard.body["seed"] != 2:
                await asyncio.wait_for(heard.gone.wait(), 5)


async def test_a_break_within_one_stream_ends_all_with_an_error(gateway: Gateway) -> None:
    def second_breaks(body: dict[str, Any]) -> list[Step]:
        if body["seed"] == 2:
            return [SSE, 0.05, ABORT]
        return [SSE, chunked(delta("a")), UNTIL_GONE]

    gateway.engine.script = second_breaks
    reply = await gateway.chat(n=2, seed=1, stream=True)
    first, last = reply.raw.decode().removesuffix("\n\n").split("\n\n")
    assert json.loads(first[6:])["choices"][0]["index"] == 0
    assert json.loads(last[6:])["error"]["code"] == "engine_lost"


async def test_nonsense_among_several_is_a_502(gateway: Gateway) -> None:
    gateway.engine.steps = [answer(b"{nonsense}")]
    assert (await gateway.chat(n=2)).status == 502
    gateway.engine.steps = [SSE, chunked("data: nonsense\n\n"), chunked(DONE), chunked(b"")]
    assert (await gateway.chat(n=2, stream=True)).status == 502


async def test_a_client_that_goes_ends_all(gateway: Gateway) -> None:
    gateway.engine.steps = [UNTIL_GONE]
    asked = asyncio.create_task(gateway.chat(n=3))
    while len(gateway.engine.heard) < 3:
        gateway.engine.asked.clear()
        await asyncio.wait_for(gateway.engine.asked.wait(), 5)
    asked.cancel()
    for heard in gateway.engine.heard:
        await asyncio.wait_for(heard.gone.wait(), 5)
