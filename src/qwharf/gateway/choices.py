"""Several choices, out of as many replies of the engine.

llama.cpp's server has choices of its own, but counts the tokens of one only, and makes no more of
them than it has slots; so each choice is a request here, and the replies are put together. The
same goes for the prompts of a plain completion. Choices come in the order of their prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from qwharf.gateway.engine_errors import nonsense
from qwharf.gateway.events import DONE, data_of
from qwharf.gateway.fields import JsonObject


def merged(replies: Sequence[JsonObject], per_prompt: int) -> JsonObject:
    """One answer out of whole ``replies``, ``per_prompt`` of them for each prompt."""
    choices = [
        {**choice, "index": index}
        for index, reply in enumerate(replies)
        for choice in reply.get("choices", ())
    ]
    made = {k: v for k, v in replies[0].items() if k != "timings"} | {"choices": choices}
    usages = {i: r["usage"] for i, r in enumerate(replies) if isinstance(r.get("usage"), dict)}
    return made | ({"usage": _sum(usages, per_prompt)} if usages else {})


class Merger:
    """One stream out of several: each choice keeps its number, all share one id."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self._frame: JsonObject = {}
        self._usages: dict[int, JsonObject] = {}

    def feed(self, index: int, events: bytes) -> bytes:
        """The events of choice ``index``, as they go to the client.

        Raises:
            ApiError: one of them makes no sense.
        """
        return b"".join(self._event(index, data) for data in data_of(events))

    def _event(self, index: int, data: bytes) -> bytes:
        if data == b"[DONE]":
            return b""
        try:
            found = json.loads(data)
            if "error" in found:
                return b"data: " + data + b"\n\n"
            found.pop("timings", None)
            usage = found.pop("usage", None)
            if isinstance(usage, dict):
                self._usages[index] = usage
            choices = [{**c, "index": index} for c in found["choices"]]
        except (ValueError, TypeError, AttributeError, KeyError) as e:
            raise nonsense("an event that makes no sense") from e
        if not self._frame:
            self._frame = {k: v for k, v in found.items() if k != "choices"}
        return _event({"choices": choices}, self._frame) if choices else b""

    def end(self, include_usage: bool) -> bytes:
        """What closes the stream: the usage of all, if it is wanted, and the end."""
        if not (include_usage and self._usages):
            return DONE
        usage = _sum(self._usages, self._per_prompt)
        return _event({"choices": [], "usage": usage}, self._frame) + DONE


def _sum(usages: dict[int, JsonObject], per_prompt: int) -> JsonObject:
    """Each prompt once, all completions."""
    prompt = sum(_count(u, "prompt_tokens") for i, u in usages.items() if i % per_prompt == 0)
    completion = sum(_count(u, "completion_tokens") for u in usages.values())
    return {
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
    }


def _count(usage: JsonObject, name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) else 0


def _event(body: JsonObject, frame: JsonObject) -> bytes:
    text = json.dumps(body | frame, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8") + b"\n\n"
