"""Bytes from the engine to the client: whole or as they come, and honestly when it breaks.

A whole answer that breaks off becomes a 502. A stream ends with an error event; it is forwarded in
whole events, so that a break never leaves half of one, and unparsed, unless it has to be merged.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import web

from qwharf.gateway import choices, errors, trace
from qwharf.gateway.assembly import Assembly
from qwharf.gateway.engine_client import Call, EngineClient
from qwharf.gateway.engine_errors import nonsense
from qwharf.gateway.fields import JsonObject

logger = logging.getLogger("qwharf.gateway")
T = TypeVar("T")

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a client is to get: the answers to ``calls``, one choice each."""

    calls: Sequence[Call]
    per_prompt: int
    """Choices of one prompt."""
    stream: bool
    include_usage: bool
    headers: Mapping[str, str]
    """For the client's answer."""


async def forward(request: web.Request, client: EngineClient, order: Order) -> web.StreamResponse:
    """The answer to ``order``, sent or ready to be sent.

    Raises:
        ApiError, QwharfError: nothing was sent yet; the engine refused, failed or cannot be had.
    """
    if order.stream:
        out = _Stream(request, order.headers)
        try:
            await (_one if len(order.calls) == 1 else _several)(client, order, out)
        except ConnectionError:
            raise  # the client's
        except Exception as e:
            await out.fail(e)
        return await out.end()
    replies = await _together([_whole(client, c) for c in order.calls])
    body = replies[0] if len(replies) == 1 else choices.merged(replies, order.per_prompt)
    raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return web.Response(body=raw, headers=order.headers, content_type="application/json")


async def _whole(client: EngineClient, call: Call) -> JsonObject:
    async with client.ask(call) as answer:
        if call.read:
            assembly = Assembly()
            async for events in answer.events():
                assembly.feed(events)
            return assembly.result()
        try:
            found = json.loads(await answer.whole())
        except ValueError as e:
            raise nonsense("what is no JSON") from e
        if not isinstance(found, dict):
            raise nonsense("no JSON object")
        return found


async def _one(client: EngineClient, order: Order, out: _Stream) -> None:
    async with client.ask(order.calls[0]) as answer:
        await out.begin()
        async for events in answer.events():
            await out.write(events)


async def _several(client: EngineClient, order: Order, out: _Stream) -> None:
    merger = choices.Merger(order.per_prompt)

    async def follow(index: int, call: Call) -> None:
        async with client.ask(call) as answer:
            async for events in answer.events():
                if made := merger.feed(index, events):
                    await out.write(made)

    await _together([follow(i, c) for i, c in enumerate(order.calls)])
    await out.write(merger.end(order.include_usage))


async def _together(work: Sequence[Awaitable[T]]) -> list[T]:
    """All results, or the first failure, and then none of the rest is left running."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Stream:
    """The client's end; begins with the first event, so that errors before it have a status."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._response = web.StreamResponse(headers={**STREAM_HEADERS, **headers})

    async def begin(self) -> None:
        """Send the head, if it is not sent."""
        if not self._response.prepared:
            await self._response.prepare(self._request)

    async def write(self, events: bytes) -> None:
        """Send events."""
        await self.begin()
        await self._response.write(events)

    async def fail(self, error: Exception) -> None:
        """Tell of an error: within the stream if it has begun, otherwise it is raised again."""
        if not self._response.prepared:
            raise error
        told = errors.any_of(error, trace.current().id)
        logger.warning("%s: %s", trace.current().id, told.message)
        trace.current().outcome = "broken"
        await self._response.write(told.event())

    async def end(self) -> web.StreamResponse:
        """Close the stream."""
        await self._response.write_eof()
        return self._response
