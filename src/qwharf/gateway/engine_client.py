"""HTTP to the engines: one request, its answer, and every way in which that breaks.

An engine that cannot be reached has not begun anything: the supervisor is told, and the request is
sent once more, to the engine that replaces it. One that breaks off after it was reached may have
been brought down by this very request, so it is not sent again.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from qwharf.gateway.errors import ENGINE, INVALID, ApiError
from qwharf.gateway.events import MAX_EVENT_BYTES, NULL_EVENT, EventCutter, is_complete
from qwharf.gateway.upstream import Deployments, Upstream

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 2**20
LARGE_BYTES = 2**20
"""Larger bodies are sent in pieces, so that the other requests are not held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request for an engine."""

    name: str
    """The deployment's."""
    path: str
    body: bytes
    stream: bool
    """Whether the engine is asked to stream; what the client gets is another matter."""


class EngineAnswer:
    """An answer of status 200, not yet read; read it with :meth:`whole` or :meth:`events`.

    Both raise :class:`ApiError` when the engine breaks off, and tell its owner.
    """

    def __init__(
        self, deployments: Deployments, upstream: Upstream, response: aiohttp.ClientResponse
    ) -> None:
        self._deployments, self._upstream, self._response = deployments, upstream, response

    async def whole(self) -> bytes:
        """All of it."""
        pieces, size = [], 0
        while piece := await self._piece():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                raise nonsense(f"more than {MAX_ANSWER_BYTES:,} bytes")
        return b"".join(pieces)

    async def events(self) -> AsyncIterator[bytes]:
        """Whole events as they come, one or more at a time, to the last one."""
        cutter = EventCutter()
        latest = b""
        while piece := await self._piece():
            whole = cutter.feed(piece)
            if NULL_EVENT in whole:
                whole = whole.replace(NULL_EVENT, b"")
            if whole:
                latest = whole
                yield whole
            elif cutter.pending_bytes > MAX_EVENT_BYTES:
                raise nonsense(f"an event of more than {MAX_EVENT_BYTES:,} bytes")
        if not is_complete(latest):
            self._deployments.lost(self._upstream)
            raise broken("ended its answer too early")

    async def _piece(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as e:
            self._deployments.lost(self._upstream)
            raise broken("broke off within its answer") from e


class EngineClient:
    """The way to the engines; open between :meth:`start` and :meth:`close`."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open it."""
        self._session = aiohttp.ClientSession(
            # llama.cpp's server keeps a thread busy with each idle connection, and closes it
            # without warning: a new one per request costs little on loopback and is never stale.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close it, and whatever is under way."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[EngineAnswer]:
        """Send ``call``; leaving the context ends the engine's work on it.

        Raises:
            ApiError: the engine refuses, fails, or cannot be reached.
            QwharfError: there is none.
        """
        upstream, response = await self._send(call)
        try:
            answer = EngineAnswer(self._deployments, upstream, response)
            if response.status != 200:
                raise refusal(response.status, await answer.whole())
            if call.stream and response.content_type != "text/event-stream":
                raise nonsense(f"`{response.content_type}` instead of a stream of events")
            yield answer
        finally:
            response.close()  # not `release`: what is still coming is not wanted

    async def _send(self, call: Call) -> tuple[Upstream, aiohttp.ClientResponse]:
        session = self._session
        if session is None:
            raise RuntimeError("the client was not started")
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
                    raise broken(f"cannot be reached: {e}") from e
            except (aiohttp.ClientError, OSError) as e:
                self._deployments.lost(upstream)
                raise broken("broke off before it answered") from e
        raise AssertionError("unreachable")


def broken(how: str) -> ApiError:
    """The engine is gone."""
    return ApiError(
        502,
        f"The engine {how}; it is being looked after, and the next request finds a new one.",
        type=ENGINE,
        code="engine_lost",
        upstream=True,
    )


def nonsense(what: str) -> ApiError:
    """The engine speaks another language than expected."""
    return ApiError(
        502, f"The engine answered with {what}.", type=ENGINE, code="engine_nonsense", upstream=True
    )


def refusal(status: int, body: bytes) -> ApiError:
    """The engine's own error, in OpenAI's shape, with its status and words kept."""
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
