"""A whole answer out of the engine's stream.

llama.cpp's server ends the work on a stream as soon as nobody listens any more. On a request
without ``stream`` it may go on for minutes: it looks for the client only after a second in which
no reply of any request moved. So the engine is always asked to stream, and answers that a client
wants whole are put together here, as the engine itself would have written them.
"""

from __future__ import annotations

import json
from typing import Any

from qwharf.gateway.engine_errors import nonsense
from qwharf.gateway.engines.streams import told
from qwharf.gateway.events import data_of
from qwharf.gateway.fields import JsonObject

_OBJECTS = {"chat.completion.chunk": "chat.completion"}


class Assembly:
    """One reply, of chat or of plain completion: feed it all events, then take :meth:`result`."""

    def __init__(self) -> None:
        self._frame: JsonObject = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, JsonObject] = {}
        self._logprobs: list[Any] = []
        self._finish: str | None = None

    def feed(self, events: bytes) -> None:
        """Add some events.

        Raises:
            ApiError: they report an error of the engine, or make no sense.
        """
        for data in data_of(events):
            if data != b"[DONE]":
                try:
                    self._event(json.loads(data))
                except (ValueError, TypeError, AttributeError, KeyError, IndexError) as e:
                    raise nonsense("an event that makes no sense") from e

    def _event(self, event: JsonObject) -> None:
        if event.get("error"):
            raise told(event)
        self._frame |= {k: v for k, v in event.items() if k != "choices"}
        for choice in event["choices"]:
            self._finish = choice.get("finish_reason") or self._finish
            self._logprobs += (choice.get("logprobs") or {}).get("content") or []
            # Chat has deltas; a plain completion has its text at the top.
            delta = choice.get("delta", choice)
            for name in ("text", "content", "reasoning_content"):
                if piece := _text(delta, name):
                    self._texts.setdefault(name, []).append(piece)
            for part in delta.get("tool_calls") or ():
                self._call(part)

    def _call(self, part: JsonObject) -> None:
        function = part["function"]
        call = self._calls.setdefault(part["index"], {"name": "", "arguments": []})
        call["name"] += _text(function, "name")
        call["arguments"].append(_text(function, "arguments"))
        call["id"] = part.get("id") or call.get("id")

    def result(self) -> JsonObject:
        """The whole answer.

        Raises:
            ApiError: there was nothing to make one of.
        """
        if not self._frame:
            raise nonsense("a stream without events")
        kind = self._frame.get("object")
        choice = self._plain() if kind == "text_completion" else self._chat()
        return {
            "choices": [choice],
            **self._frame,
            **({"object": _OBJECTS[kind]} if kind in _OBJECTS else {}),
        }

    def _chat(self) -> JsonObject:
        message: JsonObject = {"role": "assistant", "content": self._joined("content")}
        if "reasoning_content" in self._texts:
            message["reasoning_content"] = self._joined("reasoning_content")
        if self._calls:
            message["tool_calls"] = [_whole(c) for _, c in sorted(self._calls.items())]
        choice: JsonObject = {"finish_reason": self._finish, "index": 0, "message": message}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        return choice

    def _plain(self) -> JsonObject:
        return {
            "text": self._joined("text"),
            "index": 0,
            "logprobs": {"content": self._logprobs} if self._logprobs else None,
            "finish_reason": self._finish,
        }

    def _joined(self, name: str) -> str:
        return "".join(self._texts.get(name, ()))


def _text(holder: JsonObject, name: str) -> str:
    value = holder.get(name) or ""
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _whole(call: JsonObject) -> JsonObject:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    made: JsonObject = {"type": "function", "function": function}
    if call["id"]:
        made["id"] = call["id"]
    return made
