"""Errors as OpenAI's clients expect them: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from aiohttp import web

from qwharf.errors import Conflict, EngineError, QwharfError, UnknownDeployment, UsageError

logger = logging.getLogger("qwharf.gateway")

UPSTREAM_HEADER = "x-qwharf-upstream"
"""Set to ``error`` where the engine, not the gateway, is the cause."""

INVALID = "invalid_request_error"
ENGINE = "engine_error"
SERVER = "server_error"

_STATUS: tuple[tuple[type[QwharfError], int], ...] = (
    (UnknownDeployment, 404),
    (EngineError, 503),
    (Conflict, 409),
    (UsageError, 400),
)


class ApiError(Exception):
    """A refusal or failure, on its way to the client.

    Args:
        status: HTTP status.
        message: one or two sentences: what was found, what is expected, what to do.
        type: OpenAI's kind of error.
        param: the field of the request that is at fault.
        code: stable identifier for programs.
        upstream: the engine is the cause.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        upstream: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        if upstream:
            self.headers[UPSTREAM_HEADER] = "error"

    @property
    def body(self) -> bytes:
        """The JSON of the answer."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode("ascii")

    def event(self) -> bytes:
        """As an event of a stream that has begun."""
        return b"data: " + self.body + b"\n\n"

    def response(self) -> web.Response:
        """As an answer of its own."""
        return web.Response(
            body=self.body,
            status=self.status,
            headers=self.headers,
            content_type="application/json",
        )


def bad(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """A 400 about the field ``param``."""
    return ApiError(400, message, param=param, code=code)


def of(error: QwharfError) -> ApiError:
    """What a client is told of an error of ours."""
    status = next((s for kind, s in _STATUS if isinstance(error, kind)), 500)
    text = str(error)
    upstream = isinstance(error, EngineError)
    kind = ENGINE if upstream else INVALID if status < 500 else SERVER
    return ApiError(
        status,
        f"{text}; {error.hint}" if error.hint else text,
        type=kind,
        code=error.code,
        upstream=upstream,
        headers={"Retry-After": "1"} if status == 503 else None,
    )


def any_of(error: Exception, request_id: str) -> ApiError:
    """What a client is told of any failure; what nobody foresaw goes to the log in full."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QwharfError):
        return of(error)
    logger.error("request %s failed", request_id, exc_info=error)
    return ApiError(
        500,
        f"Something went wrong in qwharf; its log has the details under {request_id}.",
        type=SERVER,
        code="internal_error",
    )


def plain(error: web.HTTPException, method: str, path: str) -> ApiError:
    """One of aiohttp's own errors, which are text or HTML."""
    if error.status == 404:
        return ApiError(404, f"There is no route {method} {path}.", code="unknown_route")
    if error.status == 405:
        allowed = error.headers.get("Allow", "")
        return ApiError(
            405,
            f"{path} does not take {method}, but {allowed}.",
            code="method_not_allowed",
            headers={"Allow": allowed},
        )
    kind = INVALID if error.status < 500 else SERVER
    return ApiError(error.status, error.reason or "The request failed.", type=kind)
