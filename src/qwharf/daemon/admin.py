"""The daemon's own routes, ``/qwharf/v1/…``: deployments, logs, reports, events, the end.

They are added to the gateway's application and so come under its guard. Errors keep their kind on
the way to the client (:mod:`qwharf.daemon.wire`).
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from qwharf import __version__
from qwharf.codec import decode, encode
from qwharf.daemon.managed import Managed
from qwharf.daemon.state import State
from qwharf.daemon.supervisor import Supervisor
from qwharf.daemon.wire import HEARTBEAT_SECONDS, PREFIX, PROGRAM, error_to_json, http_status
from qwharf.errors import DaemonError, EngineError, QwharfError, UsageError
from qwharf.gateway.engine_client import key_headers
from qwharf.types import DeploymentSpec, Report

logger = logging.getLogger("qwharf.daemon")

Handler = Callable[["Admin", web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

PROBES = frozenset(
    {
        ("POST", "apply-template"),
        ("POST", "tokenize"),
        ("POST", "detokenize"),
        ("GET", "slots"),
        ("GET", "props"),
        ("GET", "metrics"),
    }
)
"""What of an engine's own routes can be reached; none of them changes it."""
PROBE_SECONDS = 60.0
MAX_PROBE_BYTES = 64 * 2**20
MAX_TAIL = 100_000


def typed(handler: Handler) -> Handler:
    """Answer errors of ours in our own shape."""

    @functools.wraps(handler)
    async def wrapped(self: Admin, request: web.Request) -> web.StreamResponse:
        try:
            return await handler(self, request)
        except QwharfError as e:
            return web.json_response(error_to_json(e), status=http_status(e))

    return wrapped


class Admin:
    """The routes over one supervisor."""

    def __init__(
        self, supervisor: Supervisor, memory: State, *, stop: Callable[[], None], state_dir: str
    ) -> None:
        self._supervisor = supervisor
        self._memory = memory
        self._stop = stop
        self._state_dir = state_dir
        self._started_at = time.time()
        self._work: set[asyncio.Task[Any]] = set()

    def add_to(self, app: web.Application) -> None:
        """Add the routes to ``app``."""
        one = f"{PREFIX}/deployments/{{name}}"
        app.add_routes(
            [
                web.get(f"{PREFIX}/status", self.status),
                web.post(f"{PREFIX}/shutdown", self.shutdown),
                web.get(f"{PREFIX}/events", self.events),
                web.get(f"{PREFIX}/deployments", self.list),
                web.post(f"{PREFIX}/deployments", self.deploy),
                web.get(one, self.get),
                web.delete(one, self.remove),
                web.get(f"{one}/logs", self.logs),
                web.get(f"{one}/reports", self.reports),
                web.post(f"{one}/reports", self.put_report),
                web.route("*", f"{one}/probe/{{route:.*}}", self.probe),
            ]
        )

    # --------------------------------------------------------------------------------- daemon

    @typed
    async def status(self, request: web.Request) -> web.StreamResponse:
        """Who answers here."""
        return web.json_response(
            {
                "program": PROGRAM,
                "version": __version__,
                "pid": os.getpid(),
                "started_at": self._started_at,
                "state_dir": self._state_dir,
                "deployments": len(self._supervisor.all()),
                "stopping": self._supervisor.closing.is_set(),
            }
        )

    @typed
    async def shutdown(self, request: web.Request) -> web.StreamResponse:
        """Stop the daemon; deployments come back with the next one."""
        self._stop()
        return web.json_response({"pid": os.getpid()}, status=202)

    @typed
    async def events(self, request: web.Request) -> web.StreamResponse:
        """What happened, newest first."""
        limit = _number(request, "limit", 200, 2000)
        events = self._memory.events(request.query.get("name"), limit)
        return web.json_response({"events": encode(events)})

    # ---------------------------------------------------------------------------- deployments

    @typed
    async def list(self, request: web.Request) -> web.StreamResponse:
        """All deployments."""
        return web.json_response({"deployments": encode(list(self._supervisor.measured()))})

    @typed
    async def get(self, request: web.Request) -> web.StreamResponse:
        """One deployment."""
        managed = self._supervisor.managed(request.match_info["name"])
        return web.json_response({"deployment": encode(managed.deployment(measured=True))})

    @typed
    async def deploy(self, request: web.Request) -> web.StreamResponse:
        """Start one; the answer is a stream of JSON lines.

        ``{"progress": TEXT}`` any number of times, empty lines as a sign of life, in the end
        ``{"deployment": …}`` or ``{"error": …}``. A client that goes away stops nothing.
        """
        spec = _decoded(DeploymentSpec, await _json(request))
        managed = await self._to_the_end(self._supervisor.deploy(spec))
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
        await response.prepare(request)
        async for text in self._until_closing(managed.progress()):
            await response.write(_line({"progress": text}) if text else b"\n")
        await response.write(_line(_outcome(managed, self._supervisor.closing.is_set())))
        await response.write_eof()
        return response

    @typed
    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Stop and forget one; the answer comes when its engine is gone."""
        await self._to_the_end(self._supervisor.remove(request.match_info["name"]))
        return web.json_response({"removed": request.match_info["name"]})

    async def _to_the_end(self, work: Any) -> Any:
        """Do ``work``, whether the client waits for it or not."""
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return await asyncio.shield(task)

    async def _until_closing(self, source: AsyncIterator[str]) -> AsyncIterator[str]:
        """``source`` with empty strings in its pauses; ends early when the daemon does."""
        closing = asyncio.ensure_future(self._supervisor.closing.wait())
        following = asyncio.ensure_future(_next(source))
        try:
            while True:
                await asyncio.wait(
                    [following, closing],
                    timeout=HEARTBEAT_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if following.done():
                    text = following.result()
                    if text is None:
                        return
                    yield text
                    following = asyncio.ensure_future(_next(source))
                elif closing.done():
                    return
                else:
                    yield ""
        finally:
            closing.cancel()
            following.cancel()

    # ------------------------------------------------------------------------ of a deployment

    @typed
    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Lines of its log as text; with ``follow=1`` the answer goes on until it is removed."""
        tail = _number(request, "tail", 200, MAX_TAIL)
        managed = self._supervisor.managed(request.match_info["name"])
        response = web.StreamResponse(
            headers={"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
        )
        with managed.log.follow() as coming:
            lines = await managed.said(tail)
            await response.prepare(request)
            await response.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            if request.query.get("follow", "") in ("1", "true"):
                async for line in self._until_closing(_lines(coming)):
                    if request.transport is None or request.transport.is_closing():
                        break
                    if line:
                        await response.write(f"{line}\n".encode())
        await response.write_eof()
        return response

    @typed
    async def reports(self, request: web.Request) -> web.StreamResponse:
        """Its reports, newest first."""
        name = request.match_info["name"]
        found = self._memory.reports(name, _number(request, "limit", 1, 100))
        if not found:
            self._supervisor.managed(name)  # an unknown name is told as such
        return web.json_response({"reports": encode(found)})

    @typed
    async def put_report(self, request: web.Request) -> web.StreamResponse:
        """Keep a report on it."""
        report = _decoded(Report, await _json(request))
        self._supervisor.put_report(request.match_info["name"], report)
        return web.json_response({"passed": report.passed}, status=201)

    @typed
    async def probe(self, request: web.Request) -> web.StreamResponse:
        """One of the engine's own routes that tell and do not change."""
        name, route = request.match_info["name"], request.match_info["route"]
        if (request.method, route) not in PROBES:
            self._supervisor.managed(name)
            raise web.HTTPNotFound
        body = await request.read()
        upstream = await self._supervisor.ready(name)
        try:
            async with self._supervisor.session.request(
                request.method,
                f"{upstream.url}/{route}",
                data=body or None,
                headers={
                    "content-type": "application/json",
                    **key_headers(upstream.spec),
                },
                timeout=aiohttp.ClientTimeout(total=PROBE_SECONDS),
                allow_redirects=False,
            ) as answer:
                content = await answer.content.read(MAX_PROBE_BYTES)
                while len(content) < MAX_PROBE_BYTES and (more := await answer.content.read(65536)):
                    content += more
                return web.Response(
                    body=content, status=answer.status, content_type=answer.content_type
                )
        except (aiohttp.ClientError, OSError) as e:
            self._supervisor.lost(upstream)
            raise EngineError(
                name, found=f"no answer to /{route} ({str(e) or type(e).__name__})"
            ) from e


def _outcome(managed: Managed, closing: bool) -> dict[str, Any]:
    if managed.state == "ready":
        return {"deployment": encode(managed.deployment(measured=True))}
    if managed.state == "failed":
        return error_to_json(managed.failure())
    why = "the daemon stops; it comes back with the next" if closing else "it was stopped meanwhile"
    return error_to_json(DaemonError(managed.name, found=why, hint="`qwharf ps`"))


async def _next(source: AsyncIterator[str]) -> str | None:
    return await anext(source, None)


async def _lines(queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    while (line := await queue.get()) is not None:
        yield line


def _line(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8") + b"\n"


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(name, found=text[:100], expected=f"a number from 0 to {most}")
    return min(int(text), most)


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError) as e:
        raise UsageError("body", found=f"no JSON ({e})"[:200], expected="a JSON object") from e


def _decoded(kind: type[T], data: Any) -> T:
    try:
        return decode(kind, data)
    except (ValueError, RecursionError) as e:
        raise UsageError(
            "body",
            found=str(e)[:500],
            expected=f"a {kind.__name__} as this qwharf ({__version__}) has it",
        ) from e
