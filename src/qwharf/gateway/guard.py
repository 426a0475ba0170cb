"""Who may speak to the gateway: the key, and no web page from elsewhere.

Without a key qwharf listens on loopback only, but a page in the user's browser reaches loopback
too: directly (its ``Origin`` gives it away) or under a name of its own that it points at 127.0.0.1
(DNS rebinding: the ``Host`` gives it away). Both are refused. Pages that come from this machine
are served, and get the CORS headers that they need.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from qwharf.gateway.errors import ApiError

OPEN_PATHS = frozenset({"/health"})
LOCAL_NAMES = frozenset({"localhost", "host.docker.internal", "host.containers.internal"})
"""Names of this machine, the last two as seen from a container on it."""
ALLOWED_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
PREFLIGHT_SECONDS = 600


class Guard:
    """Checks every request; ``api_key`` is ``None`` where none is set."""

    def __init__(self, api_key: str | None) -> None:
        self._key = None if api_key is None else _octets(api_key)

    def check(self, request: web.Request) -> None:
        """Let ``request`` pass or refuse it.

        Raises:
            ApiError: 401 or 403.
        """
        if self._key is None:
            _check_host(request)
            _check_origin(request)
        elif request.path not in OPEN_PATHS and not self._has_key(request):
            raise ApiError(
                401,
                "The API key is missing or wrong; send `Authorization: Bearer KEY` "
                "(QWHARF_API_KEY of the daemon).",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _has_key(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key")
        assert self._key is not None  # noqa: S101 - asked only where there is a key
        return hmac.compare_digest(_octets(given or ""), self._key)


def preflight(request: web.Request) -> web.Response | None:
    """The answer to a browser's question beforehand, where ``request`` is one from a local page."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    if not is_local_origin(request.headers.get("Origin", "")):
        return None
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": ALLOWED_METHODS,
            "Access-Control-Allow-Headers": wanted or "authorization, content-type",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )


def cors_headers(request: web.Request) -> dict[str, str]:
    """What lets a page of this machine read the answer."""
    origin = request.headers.get("Origin", "")
    if not origin or not is_local_origin(origin):
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "x-request-id, x-qwharf-upstream, x-qwharf-ignored",
        "Vary": "Origin",
    }


def _check_host(request: web.Request) -> None:
    host = request.headers.get("Host", "")
    if not _is_local(_hostname(f"//{host}")):
        raise ApiError(
            403,
            f"The request was made to `{host[:200]}`; without an API key only `localhost` and "
            "loopback addresses are served. Set QWHARF_API_KEY to use another name.",
            code="foreign_host",
        )


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and not is_local_origin(origin):
        raise ApiError(
            403,
            f"The request comes from a web page at `{origin[:200]}`; without an API key only pages "
            "of this machine are served.",
            code="foreign_origin",
        )


def is_local_origin(origin: str) -> bool:
    """Whether a page of ``origin`` was served by this machine."""
    return _is_local(_hostname(origin))


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_local(host: str) -> bool:
    if host in LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
