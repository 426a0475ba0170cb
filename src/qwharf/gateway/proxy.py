"""Bytes from the engine to the client: whole or as they come, and honestly when it breaks.

A whole answer that breaks off becomes a 502. A stream ends with an error event; it is forwarded in
whole events, so that a break never leaves half of one, and unparsed, unless it has to be merged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from qwharf.errors import QwharfError
from qwharf.gateway import choices, errors, trace
from qwharf.gateway.engine_client import Call, EngineClient, nonsense
from qwharf.gateway.errors import ApiError

logger = logging.getLogger("qwharf.gateway")

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a client is to get: the answers to ``calls``, one choice each."""

    calls: Sequence[Call]
    headers: Mapping[str, str]
    """For the client's answer."""


async def forward(request: web.Request, client: EngineClient, order: Order) -> web.StreamResponse:
    """The answer to ``order``, sent or ready to be sent.

    Raises:
        ApiError, QwharfError: nothing was sent yet; the engine refused, failed or cannot be had.
    """
    if order.calls[0].stream:
        out = _Stream(request, order.headers)
        try:
            await (_one if len(order.calls) == 1 else _several)(client, order.calls, out)
        except (ApiError, QwharfError) as e:
            await out.fail(e)
        return await out.end()
    bodies = await _together([_whole(client, c) for c in order.calls])
    body = bodies[0] if len(bodies) == 1 else choices.merged(bodies)
    return web.Response(body=body, headers=order.headers, content_type="application/json")


async def _whole(client: EngineClient, call: Call) -> bytes:
    async with client.ask(call) as answer:
        body = await answer.whole()
    if not (body.startswith(b"{") and body.rstrip().endswith(b"}")):
        raise nonsense("no JSON object")
    return body


async def _one(client: EngineClient, calls: Sequence[Call], out: _Stream) -> None:
    async with client.ask(calls[0]) as answer:
        await out.begin()
        async for events in answer.events():
            await out.write(events)


async def _several(client: EngineClient, calls: Sequence[Call], out: _Stream) -> None:
    merger = choices.Merger()

    async def follow(index: int, call: Call) -> bytes:
        async with client.ask(call) as answer:
            async for events in answer.events():
                await out.write(merger.feed(index, events))
        return b""

    await _together([follow(i, c) for i, c in enumerate(calls)])
    await out.write(merger.end())


async def _together(work: Sequence[Awaitable[bytes]]) -> list[bytes]:
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

    async def fail(self, error: ApiError | QwharfError) -> None:
        """Tell of an error: within the stream if it has begun, otherwise it is raised again."""
        if not self._response.prepared:
            raise error
        told = error if isinstance(error, ApiError) else errors.of(error)
        logger.warning("%s: %s", trace.current().id, told.message)
        trace.current().outcome = "broken"
        await self._response.write(told.event())

    async def end(self) -> web.StreamResponse:
        """Close the stream."""
        await self._response.write_eof()
        return self._response
