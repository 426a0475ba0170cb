"""Server-sent events, read strictly: what a lenient reader would hide is what we look for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from qwharf.verify.contract import Broken

MAX_EVENT_BYTES = 4 * 2**20


def events(pieces: Iterable[bytes]) -> Iterator[str]:
    """The ``data`` of every event in a body that arrives in ``pieces``.

    Each event must be valid UTF-8 by itself; comments (``: ping``) are passed over. Source of the
    format: the server-sent events section of the HTML standard.

    Raises:
        Broken: an event is not UTF-8, too long, or ends with the connection.
    """
    rest = b""
    for piece in pieces:
        rest = (rest + piece).replace(b"\r\n", b"\n")
        *whole, rest = rest.split(b"\n\n")
        for block in whole:
            yield from _data(block)
        if len(rest) > MAX_EVENT_BYTES:
            raise Broken(f"a stream event longer than {MAX_EVENT_BYTES:,} bytes")
    if rest.strip():
        raise Broken(f"the stream ended within an event: {rest[-80:]!r}")


def _data(block: bytes) -> Iterator[str]:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Broken(f"a stream event that is not UTF-8: {block[:80]!r}") from e
    lines = [line[5:].removeprefix(" ") for line in text.split("\n") if line.startswith("data:")]
    if lines:
        yield "\n".join(lines)


def parse(data: str) -> dict[str, Any]:
    """One event's JSON object.

    Raises:
        Broken: it is not a JSON object, or it reports an error of the endpoint.
    """
    try:
        event = json.loads(data)
    except ValueError as e:
        raise Broken(f"a stream event that is not JSON: {data[:120]!r}") from e
    if not isinstance(event, dict):
        raise Broken(f"a stream event that is not a JSON object: {data[:120]!r}")
    if event.get("error"):
        raise Broken(f"an error in the stream: {str(event['error'])[:300]}")
    return event
