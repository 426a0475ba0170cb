"""HTTP to the engines: one request, its answer, and every way in which that breaks.

An engine that cannot be reached has not begun anything: the supervisor is told, and the request is
sent once more, to the engine that replaces it. One that breaks off after it was reached may have
been brought down by this very request, so it is not sent again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from qwharf.errors import EngineError
from qwharf.gateway.engine_errors import broken, nonsense, refusal
from qwharf.gateway.engines import Stream
from qwharf.gateway.events import MAX_EVENT_BYTES
from qwharf.gateway.upstream import Deployments, Upstream
from qwharf.types import DeploymentSpec

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 256 * 2**20
KEYS = {"lmstudio": "LM_API_TOKEN"}
"""Variables that hold the key of a service of the user's own, if it wants one."""
LARGE_BYTES = 2**20
"""Larger bodies are sent in pieces, so that the other requests are not held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request for an engine."""

    name: str
    """The deployment's."""
    path: str
    body: bytes
    """A JSON object without the model's name, which is known when the engine is."""
    read: Callable[[], Stream] | None
    """Makes the reader of the reply; ``None``: the engine is not asked to stream. What the client
    gets is another matter."""
    model: str | None = None
    """The name to ask for; ``None``: the upstream's."""


class EngineAnswer:
    """An answer of status 200, not yet read; read it with :meth:`whole` or :meth:`events`.

    Both raise :class:`ApiError` when the engine breaks off, and tell its owner.
    """

    def __init__(
        self,
        deployments: Deployments,
        upstream: Upstream,
        response: aiohttp.ClientResponse,
        stream: Stream | None,
    ) -> None:
        self._deployments, self._upstream, self._response = deployments, upstream, response
        self._stream = stream

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
        """OpenAI's events as they come, one or more at a time, to the last one."""
        stream = self._stream
        assert stream is not None  # noqa: S101 - asked of streams only
        while piece := await self._piece():
            if events := stream.feed(piece):
                yield events
            elif stream.pending_bytes > MAX_EVENT_BYTES:
                raise nonsense(f"an event of more than {MAX_EVENT_BYTES:,} bytes")
            if stream.error is not None:
                raise stream.error
        if not stream.complete:
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
            stream = call.read() if call.read else None
            answer = EngineAnswer(self._deployments, upstream, response, stream)
            if response.status != 200:
                raise refusal(response.status, await answer.whole())
            if stream is not None and response.content_type != stream.content_type:
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
            body = naming(call.model or upstream.model, call.body)
            try:
                return upstream, await session.post(
                    upstream.url + call.path,
                    data=body if len(body) < LARGE_BYTES else io.BytesIO(body),
                    headers={
                        "Content-Type": "application/json",
                        **key_headers(upstream.spec),
                    },
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


def naming(model: str, body: bytes) -> bytes:
    """``body``, a JSON object with something in it, with ``model`` in front."""
    return b'{"model":' + json.dumps(model).encode("ascii") + b"," + body[1:]


def key_headers(spec: DeploymentSpec) -> dict[str, str]:
    """The header with the key of a server that is not ours.

    Raises:
        EngineError: one is needed, and the daemon does not have it.
    """
    variable = spec.endpoint.api_key_variable if spec.endpoint else KEYS.get(spec.platform)
    if variable is None:
        return {}
    key = os.environ.get(variable)
    if key:
        return {"Authorization": f"Bearer {key}"}
    if spec.endpoint is None:
        return {}
    raise EngineError(
        spec.endpoint.url,
        found=f"no {variable} in the daemon's environment",
        expected="the server's key, as `qwharf add` was told",
        hint=f"`qwharf down --daemon`, set {variable}, `qwharf serve`",
    )
