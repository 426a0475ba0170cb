"""Where Ollama listens: every spelling of ``OLLAMA_HOST`` that Ollama itself takes.

By its ``envconfig``: ``[scheme://]host[:port][/path]``, in quotes or not; a bare address of IPv6 is
one; a port that is none is the default one, which is 11434, or the scheme's own where a scheme is
written.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - replaced, not bound
"""Addresses that one listens on, but does not call."""


def url(environ: Mapping[str, str] | None = None) -> str:
    """The root of Ollama's API for its clients, without a trailing slash."""
    scheme, host, port, path = parse(
        (os.environ if environ is None else environ).get("OLLAMA_HOST", "")
    )
    host = _ANY.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{path}"


def parse(text: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of a value of ``OLLAMA_HOST``."""
    text = text.strip().strip("\"'").strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
        if text == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    default = _SCHEME_PORTS.get(scheme, DEFAULT_PORT) if found else DEFAULT_PORT
    place, slash, path = rest.partition("/")
    host, port = _split(place)
    if host is None:
        host, port = place.strip("[]") or "127.0.0.1", None
    number = int(port) if port and port.isascii() and port.isdigit() else default
    path = (slash + path).rstrip("/")
    return scheme, host, number if number <= 65535 else default, path


def _split(place: str) -> tuple[str | None, str | None]:
    """Host and port, if both are written."""
    if _is_address(place.strip("[]")):
        return None, None
    host, colon, port = place.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        return None, None
    return host.strip("[]"), port


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
