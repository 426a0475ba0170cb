"""What a client is told when an engine refuses, breaks off, or makes no sense.

Every engine has a shape of errors of its own: OpenAI's object, SGLang's without the wrapper, plain
text under ``error`` (mlx-lm, Ollama, LM Studio), and Ollama's with llama.cpp's whole JSON inside
that text. All become OpenAI's, with one code for what programs act on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from qwharf.gateway.errors import ENGINE, INVALID, ApiError

TOO_LONG = "context_length_exceeded"
_TOO_LONG = re.compile(
    r"exceed_context_size|context[ _](?:length|size|window)|maximum context|max_model_len"
    r"|longer than the (?:model|context)|the context \d|\bn_ctx\b",
    re.IGNORECASE,
)
MAX_NESTED = 3


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


def cannot(param: str, engine: str, why: str) -> ApiError:
    """The engine has no such thing, or would ignore it in silence: so it is refused here."""
    return ApiError(
        400,
        f"`{param}` cannot be had from {engine}: {why}.",
        param=param,
        code="unsupported_by_engine",
    )


def refusal(status: int, body: bytes) -> ApiError:
    """The engine's own error, in OpenAI's shape, with its status and words kept."""
    return refusal_of(status, _json(body))


def refusal_of(status: int, found: Any) -> ApiError:
    """The same, of what the engine's JSON holds."""
    error = _error_of(found)
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = f"The engine answered with HTTP {status}."
    if status in (401, 403):
        return _other(f"refuses its key (HTTP {status}: {message})", "engine_key_refused")
    if status == 404:
        return _other(f"does not have its model: {message}", "engine_lacks_model")
    if not 400 <= status < 600:
        status = 502
    told = error.get("type")
    code = told if isinstance(told, str) and told else None
    if status < 500:
        too_long = _TOO_LONG.search(f"{told} {message}")
        code = TOO_LONG if too_long else "refused_by_engine"
    return ApiError(
        status,
        message,
        type=INVALID if status < 500 else ENGINE,
        code=code,
        upstream=True,
        headers={"Retry-After": "1"} if status == 503 else None,
    )


def _other(what: str, code: str) -> ApiError:
    """Not with the engine's status: 401 and 404 would be about qwharf's own key and names."""
    return ApiError(
        502,
        f"The server behind this deployment {what}.",
        type=ENGINE,
        code=code,
        upstream=True,
    )


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error_of(found: Any, depth: int = 0) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return {}
    message = error.get("message")
    if isinstance(message, str) and message.startswith("{") and depth < MAX_NESTED:
        return _error_of(_json(message), depth + 1) or error
    return error
