"""Speak JSON over HTTP with a service, and tell its refusals in its own words."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwharf.errors import EngineError

ANSWER_SECONDS = 15.0
"""For an answer that takes no work."""
LOOK_SECONDS = 2.0
"""For finding out whether anybody is there."""
MAX_BODY_BYTES = 64 << 20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - a test


class Service:
    """A service at a URL; holds no connection.

    Every method raises :class:`EngineError`: with ``facts["status"]`` where the service says no
    (HTTP's), without where nobody answers.

    Args:
        name: as people call it.
        url: its root, without a trailing slash.
        absent: what to do where nobody answers.
        headers: sent with every request.
    """

    def __init__(
        self, name: str, url: str, *, absent: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.url = url
        self.absent = absent
        self.headers = dict(headers or {})
        handlers = [urllib.request.ProxyHandler({})] if is_local(url) else []
        self._opener = urllib.request.build_opener(*handlers)

    def answers(self, path: str) -> Any:
        """The JSON (or text) at ``path``, or ``None`` where nobody answers soon and well."""
        try:
            return self.ask("GET", path, seconds=LOOK_SECONDS)
        except EngineError:
            return None

    def ask(
        self, method: str, path: str, body: Any = None, *, seconds: float = ANSWER_SECONDS
    ) -> Any:
        """The answer: JSON where it is, else text; ``None`` if it is empty."""
        data = None if body is None else json.dumps(body).encode()
        return _parsed(self._raw(method, path, data, seconds, "application/json"))

    def lines(self, method: str, path: str, body: Any, *, seconds: float) -> Iterator[Any]:
        """The lines of an answer in NDJSON."""
        raw = self._raw(method, path, json.dumps(body).encode(), seconds, "application/json")
        for line in raw.splitlines():
            if line.strip():
                yield _parsed(line)

    def upload(self, path: str, file: Path, *, seconds: float) -> Any:
        """POST the bytes of ``file``."""
        with file.open("rb") as data:
            size = file.stat().st_size
            raw = self._raw("POST", path, data, seconds, "application/octet-stream", size)
        return _parsed(raw)

    def _raw(
        self,
        method: str,
        path: str,
        data: Any,
        seconds: float,
        kind: str,
        size: int | None = None,
    ) -> bytes:
        headers = {**self.headers, "Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = kind
        if size is not None:
            headers["Content-Length"] = str(size)
        request = urllib.request.Request(  # noqa: S310 - http or https by construction
            self.url + path, data=data, headers=headers, method=method
        )
        try:
            with self._opener.open(request, timeout=seconds) as response:
                answer: bytes = response.read(MAX_BODY_BYTES)
                if response.length:  # the line broke, or it never ends
                    raise IncompleteRead(answer, response.length)
        except urllib.error.HTTPError as e:
            with e:
                raise self._refusal(method, path, e.code, e.read(1 << 16)) from None
        except (OSError, HTTPException, ValueError) as e:
            raise self._silence(path, e) from e
        return answer

    def _refusal(self, method: str, path: str, status: int, body: bytes) -> EngineError:
        return EngineError(
            self.name,
            found=words(_parsed(body)) or f"HTTP {status} to {method} {path}",
            hint={
                401: f"{self.name} wants an API token",
                403: f"{self.name} wants another API token",
                503: "it is busy: wait, then try again",
            }.get(status, ""),
            status=status,
        )

    def _silence(self, path: str, error: Exception) -> EngineError:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            found = f"no answer from {self.url}{path} in time"
        else:
            found = f"no answer from {self.url}: {getattr(reason, 'strerror', None) or reason}"
        return EngineError(
            self.name, found=found, expected=f"{self.name}'s server", hint=self.absent
        )


def words(body: Any) -> str:
    """What an error body says: ``{"error": text}``, ``{"error": {"message": …}}``, or text."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("title") or error
    text = error if isinstance(error, str) else json.dumps(error) if error else ""
    return " ".join(text.split())[:500]


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def is_local(url: str) -> bool:
    """Whether ``url`` leads to this machine."""
    host = (urlsplit(url).hostname or "").lower()
    return host in LOOPBACK or host.startswith("127.")
