"""The wire: HTTP with a deadline on every exchange, and failures told as facts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from qwharf.verify import sse
from qwharf.verify.contract import Broken
from qwharf.verify.replies import shown

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_BODY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """A raw HTTP answer, for checks of errors and lists."""

    status: int
    text: str

    @property
    def body(self) -> Any:
        """The JSON of the answer.

        Raises:
            Broken: it is not JSON.
        """
        try:
            return json.loads(self.text)
        except ValueError as e:
            raise Broken(f"HTTP {self.status} without JSON: {shown(self.text)}") from e

    def error_message(self) -> str:
        """``error.message`` of OpenAI's error shape.

        Raises:
            Broken: the body is not of that shape.
        """
        body = self.body
        error = body.get("error") if isinstance(body, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(message, str) or not message:
            raise Broken(f"HTTP {self.status} without `error.message`: {shown(self.text, 200)}")
        return message


class Refused(Broken):
    """The endpoint answered a request with an error status."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}: {shown(answer.text, 300)}")
        self.answer = answer


class TooLate(Broken):
    """No complete answer within the deadline."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no complete answer within {seconds:.0f} s")


class NoConnection(Broken):
    """The connection could not be made, or broke."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection failed: {reason}")
        self.reason = reason


class Line:
    """HTTP to one host; every failure is :class:`Broken` with its fact."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        import httpx2

        self._http = httpx2.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            # A proxy of the environment has no business between us and this machine.
            trust_env=urlsplit(base_url).hostname not in LOOPBACK,
            # Servers close idle connections as they like (llama-server after 100 requests); a
            # request that meets such a close proves nothing, so each gets a connection of its own.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._http.close()

    def call(
        self,
        method: str,
        url: str,
        content: bytes | None,
        seconds: float,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One exchange, whatever its status.

        Raises:
            TooLate, NoConnection: there was no answer.
        """
        with (
            _translated(seconds),
            self._http.stream(
                method, url, content=content, headers=_typed(headers), timeout=seconds
            ) as response,
        ):
            kept = b"".join(_until(response.iter_bytes(), seconds))
            return Answer(response.status_code, kept.decode("utf-8", "replace"))

    def stream(self, url: str, content: bytes, seconds: float) -> Iterator[str]:
        """The data of each server-sent event, as it comes.

        Raises:
            Refused: an error status.
            Broken: not a stream of events, or broken off.
        """
        with (
            _translated(seconds),
            self._http.stream(
                "POST", url, content=content, headers=_typed(None), timeout=seconds
            ) as response,
        ):
            pieces = _until(response.iter_bytes(), seconds)
            if response.status_code != 200:
                text = b"".join(pieces).decode("utf-8", "replace")
                raise Refused(Answer(response.status_code, text))
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise Broken(f"a stream of content type `{kind}`, not `text/event-stream`")
            yield from sse.events(pieces)


def as_json(body: Any) -> bytes:
    """``body`` for the wire."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8")


@contextmanager
def _translated(seconds: float) -> Iterator[None]:
    import httpx2

    try:
        yield
    except (httpx2.TimeoutException, TimeoutError) as e:
        raise TooLate(seconds) from e
    except httpx2.HTTPError as e:
        raise NoConnection(str(e) or type(e).__name__) from e


def _until(pieces: Iterator[bytes], seconds: float) -> Iterator[bytes]:
    """Pass ``pieces`` on, but not beyond the deadline nor the size limit."""
    end, size = time.monotonic() + seconds, 0
    for piece in pieces:
        if time.monotonic() > end:
            raise TimeoutError
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise Broken(f"an answer of more than {MAX_BODY_BYTES:,} bytes")
        yield piece


def _typed(headers: dict[str, str] | None) -> dict[str, str]:
    return {"Content-Type": "application/json", **(headers or {})}
