"""One reply's events, brought under OpenAI's names and those that qwharf answers with.

``reasoning`` (vLLM, mlx-lm, Ollama's OpenAI route) becomes ``reasoning_content``; the role stands
once, at the beginning; the model is called as the deployment is; a reply that calls a tool ends
with ``tool_calls``.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any

from qwharf.gateway.engines.text import (
    CALL,
    CLOSING,
    CONTENT,
    OPENING,
    REASONING,
    Breaks,
    Piece,
    Tags,
)
from qwharf.gateway.fields import JsonObject

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_KINDS = {"chat.completion": "chat.completion.chunk"}
"""mlx-lm calls its last event so."""


class Reply:
    """One choice, event by event.

    Args:
        name: the deployment's.
        tags: what the engine may leave within the content, between its tags.
        begins: what the text is before its first tag.
        one_call: calls after the first are left out, which the engine was not told.
    """

    def __init__(
        self,
        name: str,
        *,
        tags: Collection[str] = (),
        begins: str = CONTENT,
        one_call: bool = False,
    ) -> None:
        self._name = name
        self._one_call = one_call
        self._tags = Tags(tags, begins)
        self._breaks = Breaks()
        self._begun = False
        self._calls = 0

    def change(self, event: JsonObject) -> JsonObject | None:
        """An event of the engine, for the client; ``None``: nothing of it is left."""
        choices = [c for c in map(self._choice, event.get("choices") or ()) if c]
        usage = event.get("usage")
        if not choices and not usage:
            return None
        made = {k: v for k, v in event.items() if k != "usage" or v}
        kind = event.get("object")
        made |= {"model": self._name, "choices": choices}
        return made | ({"object": _KINDS[kind]} if kind in _KINDS else {})

    def _choice(self, choice: JsonObject) -> JsonObject | None:
        if "delta" not in choice:
            return self._plain(choice)
        finish = choice.get("finish_reason")
        delta = self._delta(choice["delta"] or {}, bool(finish))
        if not delta and not finish and not choice.get("logprobs"):
            return None
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        made: JsonObject = {"index": 0, "delta": delta, "finish_reason": finish}
        if choice.get("logprobs"):
            made["logprobs"] = choice["logprobs"]
        return made

    def _delta(self, delta: JsonObject, last: bool) -> JsonObject:
        made: JsonObject = {}
        if not self._begun:
            self._begun = True
            made |= {"role": "assistant", "content": None}
        thought = "".join(_text(delta[n]) for n in REASONING_FIELDS if delta.get(n))
        reasoning = self._breaks.reasoning(thought) if thought else ""
        content, calls = "", list(delta.get("tool_calls") or ())
        for kind, text in self._pieces(_text(delta.get("content") or ""), last):
            if kind == REASONING:
                reasoning += self._breaks.reasoning(text)
            elif kind == CALL and (call := self._parsed(text)):
                calls.append(call)
            else:
                content += self._breaks.content(_said(kind, text))
        if reasoning:
            made["reasoning_content"] = reasoning
        if content:
            made["content"] = content
        if wanted := [c for c in map(self._call, calls) if c]:
            made["tool_calls"] = wanted
        return made

    def _pieces(self, text: str, last: bool) -> list[Piece]:
        return [*self._tags.feed(text), *(self._tags.end() if last else ())]

    def _parsed(self, text: str) -> JsonObject | None:
        """A call that stood in the text; ``None``: it is none, and stays text."""
        try:
            found = json.loads(text)
            name, arguments = found["name"], found.get("arguments", {})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        written = json.dumps(arguments, ensure_ascii=False)
        function = {"name": name, "arguments": written}
        return {"index": self._calls, "id": uuid.uuid4().hex, "function": function}

    def _call(self, call: JsonObject) -> JsonObject | None:
        index = call.get("index", 0)
        self._calls = max(self._calls, index + 1)
        if self._one_call and index:
            return None
        function = {k: v for k, v in (call.get("function") or {}).items() if v is not None}
        made: JsonObject = {"index": index, "function": function}
        if call.get("id"):
            made |= {"id": call["id"], "type": "function"}
        return made

    def _plain(self, choice: JsonObject) -> JsonObject:
        """A plain completion's: text, and log probabilities in the form of chat's."""
        made = {
            "index": 0,
            "text": _text(choice.get("text") or ""),
            "finish_reason": choice.get("finish_reason"),
        }
        if found := choice.get("logprobs"):
            made["logprobs"] = found if "content" in found else {"content": _entries(found)}
        return made


def _said(kind: str, text: str) -> str:
    return text if kind == CONTENT else OPENING[kind] + text + CLOSING[kind]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _entries(found: JsonObject) -> list[JsonObject]:
    """OpenAI's old four lists of log probabilities as one list of entries."""
    tops = found.get("top_logprobs") or [None] * len(found["tokens"])
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": t, "logprob": v} for t, v in (top or {}).items()],
        }
        for token, value, top in zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    ]
