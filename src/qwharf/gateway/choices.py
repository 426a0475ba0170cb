"""Several choices for one prompt, out of as many replies of the engine.

llama.cpp's server has choices of its own, but counts the tokens of one only, and no more of them
than it has slots; so each choice is a request here, and the replies are put together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qwharf.gateway.engine_client import nonsense
from qwharf.gateway.events import DONE
from qwharf.gateway.fields import JsonObject


def merged(bodies: Sequence[bytes]) -> bytes:
    """One answer out of the whole replies ``bodies``.

    Raises:
        ApiError: one of them is no reply.
    """
    replies = [_object(b) for b in bodies]
    choices = [
        {**choice, "index": index}
        for index, reply in enumerate(replies)
        for choice in reply.get("choices", [])[:1]
    ]
    usage = _sum([r["usage"] for r in replies if isinstance(r.get("usage"), dict)])
    made = {k: v for k, v in replies[0].items() if k != "timings"}
    return _text(made | {"choices": choices} | ({"usage": usage} if usage else {}))


class Merger:
    """One stream out of several: each choice keeps its number, all share one id."""

    def __init__(self) -> None:
        self._common: JsonObject = {}
        self._usages: list[JsonObject] = []

    def feed(self, index: int, events: bytes) -> bytes:
        """The events of choice ``index``, as they go to the client.

        Raises:
            ApiError: one of them is no JSON object.
        """
        return b"".join(self._event(index, e) for e in events.split(b"\n\n") if e.strip())

    def _event(self, index: int, event: bytes) -> bytes:
        if event.startswith(b":"):
            return event + b"\n\n"
        data = event.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return b""
        found = _object(data)
        if "error" in found:
            return event + b"\n\n"
        self._common = self._common or {k: found[k] for k in ("id", "created") if k in found}
        usage = found.get("usage")
        if isinstance(usage, dict) and not found.get("choices"):
            self._usages.append(found)
            return b""
        found["choices"] = [{**c, "index": index} for c in found.get("choices", [])]
        found.pop("timings", None)
        return b"data: " + _text(found | self._common) + b"\n\n"

    def end(self) -> bytes:
        """What closes the stream: the usage of all, where it was told, and the end."""
        if not self._usages:
            return DONE
        last = {k: v for k, v in self._usages[0].items() if k != "timings"}
        last["usage"] = _sum([u["usage"] for u in self._usages])
        return b"data: " + _text(last | self._common) + b"\n\n" + DONE


def _sum(usages: Sequence[JsonObject]) -> JsonObject:
    """The prompt once, the completions together."""
    if not usages:
        return {}
    prompt = _count(usages[0], "prompt_tokens")
    completion = sum(_count(u, "completion_tokens") for u in usages)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**usages[0], **counts, "total_tokens": prompt + completion}


def _count(usage: JsonObject, name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _object(raw: bytes) -> JsonObject:
    try:
        found: Any = json.loads(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise nonsense("no JSON object")
    return found


def _text(value: JsonObject) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
