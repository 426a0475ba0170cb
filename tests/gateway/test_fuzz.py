"""Whatever is sent, the answer is JSON in a known shape, and never a 5xx."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from gateway_client import HI, Gateway
from gateway_doubles import Engine, Owner, sensible
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.gateway.app import build

SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["user", "assistant", "tool", "system", "none", "json_schema", "pocket", "f"]),
)
KEYS = st.one_of(
    st.sampled_from(
        [
            *("role", "content", "type", "text", "function", "name", "arguments", "tool_calls"),
            *("parameters", "schema", "json_schema", "enable_thinking", "effort", "id", "5", "-1"),
        ]
    ),
    st.text(max_size=4),
)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = [
    *("model", "messages", "prompt", "input", "stream", "stream_options", "temperature", "top_p"),
    *("top_k", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty", "n", "seed"),
    *("max_tokens", "max_completion_tokens", "stop", "logprobs", "top_logprobs", "logit_bias"),
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "response_format", "modalities"),
    *("chat_template_kwargs", "reasoning_effort", "reasoning", "enable_thinking", "thinking"),
    *("thinking_budget", "suffix", "echo", "best_of", "encoding_format", "dimensions"),
]
ROUTE = st.sampled_from(["chat/completions", "completions", "embeddings"])


class Loop:
    """The gateway in a loop that lasts over hypothesis' examples."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.gateway = self.loop.run_until_complete(self._start())

    async def _start(self) -> Gateway:
        engine = await Engine().start()
        engine.script = sensible
        self.server = TestServer(build(Owner(engine), api_key=None))
        await self.server.start_server()
        self.session = aiohttp.ClientSession()
        return Gateway(Owner(engine), str(self.server.make_url("")).rstrip("/"), self.session)

    def post(self, route: str, raw: bytes) -> None:
        """Post and hold the answer against the rule."""
        # Numbers of choices are bounded, and so is what a test may cost.
        self.gateway.engine.heard.clear()
        reply = self.loop.run_until_complete(self.gateway.post(f"/v1/{route}", raw))
        assert reply.status < 500
        if reply.status != 200:
            assert reply.message

    def stop(self) -> None:
        async def end() -> None:
            await self.session.close()
            await self.server.close()
            await self.gateway.engine.stop()

        self.loop.run_until_complete(end())
        self.loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.stop()


def wire(body: Any) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


@given(route=ROUTE, raw=st.binary(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_bytes(loop: Loop, route: str, raw: bytes) -> None:
    loop.post(route, raw)


@given(route=ROUTE, fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
@settings(max_examples=120, deadline=None)
def test_any_fields(loop: Loop, route: str, fields: dict[str, Any]) -> None:
    loop.post(
        route, wire({"model": "pocket", "messages": HI, "prompt": "a", "input": "a"} | fields)
    )


@given(messages=st.lists(st.dictionaries(KEYS, JSON, max_size=4), max_size=3))
@settings(max_examples=80, deadline=None)
def test_any_messages(loop: Loop, messages: list[Any]) -> None:
    loop.post("chat/completions", wire({"model": "pocket", "messages": messages}))
