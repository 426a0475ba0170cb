"""Streams of server-sent events as bytes: cut between events, never parsed."""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT_BYTES = 16 * 2**20
DONE = b"data: [DONE]\n\n"
ERROR_EVENT = b'data: {"error"'
NULL_EVENT = b"data: null\n\n"
"""Sent by llama.cpp's server where a token gave no text; strict clients fail on it."""
_ENDS = (b"\n\n", b"\r\n\r\n")
_OVERLAP = max(map(len, _ENDS)) - 1


class EventCutter:
    """Gives out whole events only, however the network cut them; each byte is looked at once."""

    def __init__(self) -> None:
        self._pending = bytearray()

    @property
    def pending_bytes(self) -> int:
        """Bytes of the event that is not yet whole."""
        return len(self._pending)

    def feed(self, piece: bytes) -> bytes:
        """All events that are whole with ``piece``, possibly none."""
        pending = self._pending
        if not pending and piece.endswith(_ENDS[0]):
            return piece
        unseen = max(0, len(pending) - _OVERLAP)
        pending += piece
        cut = max(_end(pending, end, unseen) for end in _ENDS)
        if not cut:
            return b""
        whole = bytes(pending[:cut])
        del pending[:cut]
        return whole


def _end(data: bytearray, end: bytes, start: int) -> int:
    at = data.rfind(end, start)
    return 0 if at < 0 else at + len(end)


def data_of(events: bytes) -> Iterator[bytes]:
    """The data of each of some whole events; comments are passed over."""
    for event in events.replace(b"\r\n", b"\n").split(b"\n\n"):
        if event.startswith(b"data:"):
            yield event[5:].strip()


def is_complete(latest: bytes) -> bool:
    """Whether a stream whose latest events are these has come to its end."""
    if latest.endswith(DONE):
        return True
    event = latest.strip().replace(b"\r\n", b"\n").split(b"\n\n")[-1]
    return event == DONE.strip() or event.startswith(ERROR_EVENT)
