"""Readers of streams: as they are, or event by event."""

from __future__ import annotations

import json
from collections.abc import Callable

from qwharf.gateway.engine_errors import nonsense, refusal_of
from qwharf.gateway.errors import ApiError
from qwharf.gateway.events import DONE, NULL_EVENT, EventCutter, data_of, is_complete
from qwharf.gateway.fields import JsonObject

EVENT_STREAM = "text/event-stream"
BROKEN_STATUS = 500
"""Of an error that a stream reports without a status."""


class AsItIs:
    """For engines whose events are what clients shall get: cut between events, never parsed."""

    content_type = EVENT_STREAM

    def __init__(self) -> None:
        self._cutter = EventCutter()
        self._latest = b""

    def feed(self, piece: bytes) -> bytes:
        """Whole events, unchanged."""
        whole = self._cutter.feed(piece)
        if NULL_EVENT in whole:
            whole = whole.replace(NULL_EVENT, b"")
        self._latest = whole or self._latest
        return whole

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that is not yet whole."""
        return self._cutter.pending_bytes

    @property
    def complete(self) -> bool:
        """Whether the latest event is an end."""
        return is_complete(self._latest)

    @property
    def error(self) -> ApiError | None:
        """Errors are events, and passed on."""
        return None


class Changed:
    """For engines with OpenAI's events under other names: each is read, changed and written anew.

    Args:
        change: an event of the engine to one for the client; ``None`` leaves it out. It may raise
            ``TypeError``, ``AttributeError`` and the like on what makes no sense.
    """

    content_type = EVENT_STREAM

    def __init__(self, change: Callable[[JsonObject], JsonObject | None]) -> None:
        self._cutter = EventCutter()
        self._change = change
        self.complete = False
        self.error: ApiError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that is not yet whole."""
        return self._cutter.pending_bytes

    def feed(self, piece: bytes) -> bytes:
        """The changed events; comments, such as signs of life, are left out."""
        made = []
        for data in data_of(self._cutter.feed(piece)):
            if self.complete or self.error:
                break
            if data == b"[DONE]":
                self.complete = True
                made.append(DONE)
            else:
                made.append(self._event(data))
        return b"".join(made)

    def _event(self, data: bytes) -> bytes:
        try:
            found = json.loads(data)
            if found is None:
                return b""
            if found.get("error") or found.get("object") == "error":
                self.error = told(found)
                return b""
            changed = self._change(found)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as e:
            raise nonsense("an event that makes no sense") from e
        return b"" if changed is None else event(changed)


def told(found: JsonObject) -> ApiError:
    """The error within a stream, with the status that it names, if it names one."""
    inner = found.get("error")
    named = inner.get("code") if isinstance(inner, dict) else found.get("code")
    if not isinstance(named, int) or not 400 <= named < 600:
        named = BROKEN_STATUS
    return refusal_of(named, found)


def event(value: JsonObject) -> bytes:
    """``value`` as a server-sent event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", "replace") + b"\n\n"
