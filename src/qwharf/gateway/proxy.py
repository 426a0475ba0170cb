"""Bytes from the engine to the client: whole or as they come, and honestly when it breaks.

- An engine that cannot be reached has not begun anything: the supervisor is told, and the request
  is sent once more, to the engine that replaces it.
- One that breaks off after it was reached may have been brought down by this very request: a
  whole answer becomes a 502, a stream ends with an error event; neither is tried again.
- Streams are forwarded in whole events, so that a break never leaves half an event, and never
  parsed.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from qwharf.gateway import trace
from qwharf.gateway.errors import ENGINE, INVALID, ApiError
from qwharf.gateway.events import MAX_EVENT_BYTES, EventCutter, is_complete
from qwharf.gateway.upstream import Deployments, Upstream

logger = logging.getLogger("qwharf.gateway")

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 2**20
LARGE_BYTES = 2**20
"""Larger bodies are sent in pieces, so that the other requests are not held up."""
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request for an engine."""

    name: str
    """The deployment's."""
    path: str
    body: bytes
    stream: bool
    headers: Mapping[str, str]
    """For the client's answer."""


class Proxy:
    """The way to the engines; open between :meth:`start` and :meth:`close`."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the client."""
        self._session = aiohttp.ClientSession(
            # llama.cpp's server keeps a thread busy with each idle connection, and closes it
            # without warning: a new one per request is as fast on loopback and never stale.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client and whatever is under way."""
        if self._session is not None:
            await self._session.close()

    async def forward(self, request: web.Request, call: Call) -> web.StreamResponse:
        """The engine's answer to ``call``, sent or ready to be sent.

        Raises:
            ApiError: nothing was sent yet; the engine refused, failed or cannot be had.
            QwharfError: there is no engine.
        """
        async with self._asked(call) as (upstream, response):
            if response.status != 200:
                raise refusal(response.status, await self._whole(upstream, response))
            kind = response.content_type
            if call.stream:
                if kind != "text/event-stream":
                    raise _nonsense(f"`{kind}` instead of a stream of events")
                return await self._streamed(request, call, upstream, response)
            body = await self._whole(upstream, response)
            if not (body.startswith(b"{") and body.rstrip().endswith(b"}")):
                raise _nonsense("no JSON object")
            return web.Response(body=body, headers=call.headers, content_type="application/json")

    @asynccontextmanager
    async def _asked(self, call: Call) -> AsyncIterator[tuple[Upstream, aiohttp.ClientResponse]]:
        upstream, response = await self._ask(call)
        try:
            yield upstream, response
        finally:
            response.close()  # not `release`: what is still coming is not wanted

    async def _ask(self, call: Call) -> tuple[Upstream, aiohttp.ClientResponse]:
        session = self._session
        if session is None:
            raise RuntimeError("the proxy was not started")
        for last in (False, True):
            upstream = await self._deployments.ready(call.name)
            try:
                return upstream, await session.post(
                    upstream.url + call.path,
                    data=call.body if len(call.body) < LARGE_BYTES else io.BytesIO(call.body),
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as e:
                self._deployments.lost(upstream)
                if last:
                    raise _broken(f"cannot be reached: {e}") from e
            except (aiohttp.ClientError, OSError) as e:
                self._deployments.lost(upstream)
                raise _broken("broke off before it answered") from e
        raise AssertionError("unreachable")

    async def _whole(self, upstream: Upstream, response: aiohttp.ClientResponse) -> bytes:
        pieces, size = [], 0
        try:
            async for piece in response.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    raise _nonsense(f"more than {MAX_ANSWER_BYTES:,} bytes")
        except (aiohttp.ClientError, OSError) as e:
            self._deployments.lost(upstream)
            raise _broken("broke off within its answer") from e
        return b"".join(pieces)

    async def _streamed(
        self,
        request: web.Request,
        call: Call,
        upstream: Upstream,
        response: aiohttp.ClientResponse,
    ) -> web.StreamResponse:
        out = web.StreamResponse(headers={**STREAM_HEADERS, **call.headers})
        await out.prepare(request)
        cutter = EventCutter()
        latest = b""
        broken: ApiError | None = None
        while broken is None:
            try:
                piece = await response.content.readany()
            except (aiohttp.ClientError, OSError):
                broken = _broken("broke off within its answer")
                break
            if not piece:
                break
            whole = cutter.feed(piece)
            if whole:
                latest = whole
                await out.write(whole)
            elif cutter.pending_bytes > MAX_EVENT_BYTES:
                broken = _nonsense(f"an event of more than {MAX_EVENT_BYTES:,} bytes")
        if broken is None and not is_complete(latest):
            broken = _broken("ended its answer too early")
        if broken is not None:
            self._deployments.lost(upstream)
            logger.warning("%s: %s", call.name, broken.message)
            trace.current().outcome = "broken"
            await out.write(broken.event())
        await out.write_eof()
        return out


def _broken(how: str) -> ApiError:
    return ApiError(
        502,
        f"The engine {how}; it is being looked after, and the next request finds a new one.",
        type=ENGINE,
        code="engine_lost",
        upstream=True,
    )


def _nonsense(what: str) -> ApiError:
    return ApiError(
        502, f"The engine answered with {what}.", type=ENGINE, code="engine_nonsense", upstream=True
    )


def refusal(status: int, body: bytes) -> ApiError:
    """The engine's own error, in OpenAI's shape, with its status kept."""
    error = _error_of(body)
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = f"The engine answered with HTTP {status}."
    told = error.get("type")
    code = told if isinstance(told, str) and told else None
    if told == "exceed_context_size_error":
        code = "context_length_exceeded"
    elif told == INVALID:
        code = "refused_by_engine"
    return ApiError(
        status if 400 <= status < 600 else 502,
        message,
        type=INVALID if 400 <= status < 500 else ENGINE,
        code=code,
        upstream=True,
        headers={"Retry-After": "1"} if status == 503 else None,
    )


def _error_of(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}
