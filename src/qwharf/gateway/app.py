"""The HTTP application: OpenAI's routes over all deployments.

``build`` makes it; the daemon adds its own routes to the same application, which then come under
the same guard, body limit and shape of errors.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from qwharf import __version__
from qwharf.gateway import engines, errors, openai, proxy, router, trace
from qwharf.gateway.body import MAX_BODY_BYTES, read_object, to_bytes
from qwharf.gateway.engine_client import Call, EngineClient
from qwharf.gateway.engines import Wire
from qwharf.gateway.errors import ApiError
from qwharf.gateway.fields import Fields, JsonObject
from qwharf.gateway.guard import Guard, cors_headers, preflight
from qwharf.gateway.presence import ClientGone, Presence
from qwharf.gateway.upstream import Deployments
from qwharf.types import Deployment, DeploymentSpec

logger = logging.getLogger("qwharf.gateway")

CLIENT_GONE_STATUS = 499
"""In the log only; nobody is there to read it."""
MAX_IGNORED_SHOWN = 10

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Dialect = Callable[[Fields, DeploymentSpec], Wire]
"""Fields of a request to what the engine is sent."""


def build(deployments: Deployments, *, api_key: str | None) -> web.Application:
    """The gateway over ``deployments``; with ``api_key`` every route but ``GET /health`` needs it.

    Run it as it is: clients that go away are noticed whatever the runner's settings.
    """
    gateway = _Gateway(deployments)
    app = web.Application(middlewares=[_outermost(Guard(api_key))], client_max_size=MAX_BODY_BYTES)
    app.cleanup_ctx.append(gateway.lifetime)
    app.on_response_prepare.append(_finish_headers)
    app.add_routes(
        [
            web.get("/health", gateway.health),
            web.get("/v1/models", gateway.models),
            web.get("/v1/models/{name:.+}", gateway.model),
            web.post("/v1/chat/completions", gateway.chat),
            web.post("/v1/completions", gateway.completion),
            web.post("/v1/embeddings", gateway.embedding),
        ]
    )
    return app


# ---------------------------------------------------------------------------------- middleware


def _outermost(guard: Guard) -> Middleware:
    @web.middleware
    async def outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Guard, shape of errors, and one line in the log; nothing escapes."""
        start = time.perf_counter()
        response = await _answer(guard, request, handler)
        if request.path.startswith("/v1/") or response.status >= 500:
            _log(request, response.status, time.perf_counter() - start)
        return response

    return outermost


async def _answer(guard: Guard, request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get("x-request-id", "")
    mine = trace.begin(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    try:
        return preflight(request) or await _guarded(guard, request, handler)
    except web.HTTPException as e:
        if e.status < 400:
            raise
        return errors.plain(e, request.method, request.path).response()
    except (ClientGone, ConnectionError):
        mine.outcome = "client gone"
        return web.Response(status=CLIENT_GONE_STATUS)
    except Exception as e:
        return errors.any_of(e, mine.id).response()


async def _guarded(guard: Guard, request: web.Request, handler: Handler) -> web.StreamResponse:
    guard.check(request)
    return await handler(request)


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["x-request-id"] = trace.current().id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.update(cors_headers(request))


def _log(request: web.Request, status: int, seconds: float) -> None:
    """Who asked for what and how it went; never what was said."""
    mine = trace.current()
    logger.info(
        "%s %s %s %d %.0f ms%s%s",
        mine.id,
        request.method,
        request.path,
        status,
        seconds * 1000,
        mine.deployment and f" {mine.deployment}",
        mine.outcome and f" ({mine.outcome})",
    )


# -------------------------------------------------------------------------------------- routes


class _Gateway:
    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self._client = EngineClient(deployments)
        self._presence = Presence()

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """Open while the application runs."""
        await self._client.start()
        yield
        await self._client.close()

    async def health(self, request: web.Request) -> web.Response:
        """Whether the daemon is there; needs no key."""
        return _json({"status": "ok", "version": __version__})

    async def models(self, request: web.Request) -> web.Response:
        """OpenAI's list of models: one per deployment, and one per adapter on it."""
        there = router.served(self._deployments.all())
        entries = [_entry(d, name) for d in there for name in d.spec.names]
        return _json({"object": "list", "data": entries})

    async def model(self, request: web.Request) -> web.Response:
        """One of them."""
        name = request.match_info["name"]
        return _json(_entry(router.find(name, self._deployments.all()), name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        return await self._generate(request, _chat)

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``."""
        return await self._generate(request, _completion)

    async def embedding(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/embeddings``, where the engine can."""
        try:
            return await self._generate(request, _embedding)
        except ApiError as e:
            if e.status != 501:
                raise
            raise ApiError(
                501,
                f"`{trace.current().deployment}` writes text and makes no embeddings.",
                param="model",
                code="no_embeddings",
                upstream=True,
            ) from None

    async def _generate(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        with self._presence.watch(request):
            fields = Fields(await read_object(request))
            deployment = router.find(fields.get("model"), self._deployments.all())
            trace.current().deployment = name = deployment.spec.name
            wire = dialect(fields, deployment.spec)
            order = proxy.Order(
                calls=[
                    Call(
                        name=name,
                        path=wire.path,
                        body=to_bytes(b),
                        read=wire.read,
                        model=wire.model,
                    )
                    for b in wire.bodies
                ],
                per_prompt=wire.per_prompt,
                stream=wire.stream,
                include_usage=wire.include_usage,
                headers=_ignored(fields.unread()),
            )
            return await proxy.forward(request, self._client, order)


def _chat(fields: Fields, spec: DeploymentSpec) -> Wire:
    return engines.of(spec).chat(openai.chat(fields, spec), spec)


def _completion(fields: Fields, spec: DeploymentSpec) -> Wire:
    return engines.of(spec).completion(openai.completion(fields, spec), spec)


def _embedding(fields: Fields, spec: DeploymentSpec) -> Wire:
    return engines.of(spec).embedding(openai.embedding(fields, spec), spec)


def _ignored(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    shown = [n if _FIELD_NAME.fullmatch(n) else "?" for n in names[:MAX_IGNORED_SHOWN]]
    return {"x-qwharf-ignored": ", ".join(shown)}


def _entry(deployment: Deployment, name: str) -> JsonObject:
    """A model as OpenAI lists it; an adapter names what it belongs to, as vLLM's do."""
    spec = deployment.spec
    adapter = name in spec.adapters
    return {
        "id": name if adapter else spec.name,
        "object": "model",
        "created": int(deployment.created_at),
        "owned_by": "qwharf",
        **({"parent": spec.name} if adapter else {}),
        "max_model_len": spec.context_tokens,
        "qwharf": {
            "model": spec.model,
            "format": str(spec.format),
            "platform": spec.platform,
            "thinking": spec.thinking,
            "context_tokens": spec.context_tokens,
            "state": deployment.state,
            "verified": None if adapter else deployment.verified,
        },
    }


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=json.dumps(value).encode("utf-8"), content_type="application/json")
