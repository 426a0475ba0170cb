"""Reading a request's body: bounded, strict JSON, with the reason for every refusal."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from aiohttp import web

from qwharf.gateway.errors import ApiError, bad
from qwharf.gateway.fields import JsonObject, shown

MAX_BODY_BYTES = 16 * 2**20
"""A million tokens of text are some 5 MB."""
MAX_DEPTH = 64
MAX_CONTAINERS = 1_000_000
"""Opening brackets in a body, those in text included: each may cost a hundred bytes of memory."""
BODY_SECONDS = 60.0
"""For all of the body to arrive."""


async def read_object(request: web.Request) -> JsonObject:
    """The JSON object in the body of ``request``.

    Raises:
        ApiError: 400, 408 or 413; it is not one, slow, or too large.
    """
    return parse_object(await _read(request))


async def _read(request: web.Request) -> bytes:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large(request.content_length)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(None) from None
    except TimeoutError:
        raise ApiError(
            408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds.", code="timeout"
        ) from None
    except web.RequestPayloadError as e:
        raise bad(None, f"The body could not be read: {e}.", "invalid_body") from None


def too_large(size_bytes: int | None) -> ApiError:
    """The refusal of a body beyond the limit."""
    found = f"has {size_bytes:,} bytes" if size_bytes else "is larger"
    return ApiError(
        413,
        f"The body {found}; the limit is {MAX_BODY_BYTES:,} bytes.",
        code="request_too_large",
    )


def parse_object(raw: bytes) -> JsonObject:
    """The JSON object that ``raw`` is; stricter than ``json.loads``.

    Raises:
        ApiError: 400; not UTF-8, not JSON, not an object, a key twice, NaN, or too deep.
    """
    containers = raw.count(b"{") + raw.count(b"[")
    if containers > MAX_CONTAINERS:
        raise bad(None, f"The body has more than {MAX_CONTAINERS:,} brackets.", "invalid_json")
    try:
        value = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as e:
        raise bad(
            None, f"The body is not UTF-8: byte {e.start} is wrong.", "invalid_json"
        ) from None
    except json.JSONDecodeError as e:
        raise bad(
            None,
            f"The body is not JSON: {e.msg} at line {e.lineno}, column {e.colno}.",
            "invalid_json",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as e:  # a number with more digits than Python converts
        raise bad(None, f"The body is not usable JSON: {e}.", "invalid_json") from None
    if not isinstance(value, dict):
        raise bad(None, f"The body is {shown(value)}; expected a JSON object.", "invalid_json")
    if containers > MAX_DEPTH:
        check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise bad(twice, f"The key {shown(twice)} stands twice in one object.", "invalid_json")
    return made


def _no_constant(text: str) -> NoReturn:
    raise bad(None, f"{text} is not a JSON number.", "invalid_json")


def check_depth(value: Any) -> None:
    """Refuse what nests deeper than ``MAX_DEPTH``: engines and templates recurse.

    Raises:
        ApiError: 400.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]


def _too_deep() -> ApiError:
    return bad(None, f"The JSON nests deeper than {MAX_DEPTH} levels.", "invalid_json")


def to_bytes(value: JsonObject) -> bytes:
    """``value`` for the engine.

    Raises:
        ApiError: 400; it holds what JSON or UTF-8 cannot (1e999, half a surrogate pair).
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
            "utf-8"
        )
    except UnicodeEncodeError:
        raise bad(
            None,
            "A text holds half of a surrogate pair (\\ud800 to \\udfff alone).",
            "invalid_json",
        ) from None
    except ValueError:
        raise bad(None, "A number is too large to be one (1e999).", "invalid_json") from None
