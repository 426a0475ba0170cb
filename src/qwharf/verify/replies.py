"""One reply of a chat endpoint, whole or put together from a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qwharf.verify.contract import Broken

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names in use; the first is the contract's."""
THINK_TAGS = ("<think>", "</think>")
TOOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>")
RAW_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
STOP_TOKENS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One structured call; ``arguments`` is text, as OpenAI has it."""

    id: str
    name: str
    arguments: str
    index: int = 0

    def parsed(self) -> dict[str, Any]:
        """The arguments as an object.

        Raises:
            Broken: they are not a JSON object.
        """
        try:
            value = json.loads(self.arguments)
        except ValueError as e:
            raise Broken(f"arguments of `{self.name}` are not JSON: {self.arguments!r}") from e
        if not isinstance(value, dict):
            raise Broken(f"arguments of `{self.name}` are not an object: {self.arguments!r}")
        return value


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the endpoint reports them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back, with names normalised; ``raw`` keeps what was really sent."""

    content: str
    reasoning: str
    reasoning_field: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    id: str = ""
    logprobs: Sequence[dict[str, Any]] = ()
    raw: Sequence[dict[str, Any]] = field(default=(), repr=False)
    """The one response object, or all stream events."""
    done: bool = True
    """Whether a stream ended with ``[DONE]``."""

    @property
    def text(self) -> str:
        """All that the model said, thinking included."""
        return self.reasoning + self.content

    def leaked(self) -> str | None:
        """The first tag that stands in text meant for people.

        Tool tags within the reasoning are the model's own thoughts, and not counted.
        """
        for tag in (*THINK_TAGS, *TOOL_TAGS):
            if tag in self.content:
                return f"`{tag}` in content: {shown(self.content)}"
            if tag in self.reasoning and tag in THINK_TAGS:
                return f"`{tag}` in the reasoning: {shown(self.reasoning)}"
        return None

    def fumbled(self) -> bool:
        """Whether content holds tool tags but no well-formed call: so the model itself wrote it."""
        if any(tag in self.text for tag in THINK_TAGS):
            return False
        return any(t in self.content for t in TOOL_TAGS) and not any(
            _is_call(text) for text in RAW_CALL.findall(self.content)
        )


def _is_call(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and "name" in value


def whole(body: dict[str, Any]) -> Reply:
    """A reply from the one object of a request without ``stream``.

    Raises:
        Broken: it does not have OpenAI's shape.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
    except (KeyError, IndexError, TypeError) as e:
        raise Broken(f"a response without choices[0].message: {shown(json.dumps(body))}") from e
    if not isinstance(message, dict):
        raise Broken(f"a message that is no object: {shown(json.dumps(message))}")
    name, reasoning = _reasoning(message)
    return Reply(
        content=_text(message, "content"),
        reasoning=reasoning,
        reasoning_field=name,
        tool_calls=tuple(_call(c, i) for i, c in enumerate(message.get("tool_calls") or ())),
        finish_reason=choice.get("finish_reason"),
        usage=_usage(body),
        id=str(body.get("id") or ""),
        logprobs=(choice.get("logprobs") or {}).get("content") or (),
        raw=(body,),
    )


def streamed(events: Sequence[dict[str, Any]], *, done: bool) -> Reply:
    """A reply put together from the deltas of a stream.

    Raises:
        Broken: a delta does not have OpenAI's shape.
    """
    content, reasoning, field_name, finish = "", "", None, None
    calls: dict[int, dict[str, str]] = {}
    usage: Usage | None = None
    logprobs: list[dict[str, Any]] = []
    for event in events:
        usage = _usage(event) or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            name, piece = _reasoning(delta)
            field_name = field_name or name
            reasoning += piece
            content += _text(delta, "content")
            for part in delta.get("tool_calls") or ():
                _add(calls, part)
            finish = choice.get("finish_reason") or finish
            logprobs += (choice.get("logprobs") or {}).get("content") or ()
    return Reply(
        content=content,
        reasoning=reasoning,
        reasoning_field=field_name,
        tool_calls=tuple(ToolCall(index=i, **c) for i, c in sorted(calls.items())),
        finish_reason=finish,
        usage=usage,
        id=str(events[0].get("id") or "") if events else "",
        logprobs=logprobs,
        raw=tuple(events),
        done=done,
    )


def shown(text: str, limit: int = 120) -> str:
    """``text`` in quotes and short, for a report."""
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def _reasoning(message: dict[str, Any]) -> tuple[str | None, str]:
    for name in REASONING_FIELDS:
        if message.get(name):
            return name, _text(message, name)
    return None, ""


def _text(message: dict[str, Any], key: str) -> str:
    value = message.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Broken(f"`{key}` is {type(value).__name__}, not text: {shown(json.dumps(value))}")
    return value


def _call(call: Any, index: int) -> ToolCall:
    try:
        function = call["function"]
        name, arguments = function["name"], function["arguments"]
    except (KeyError, TypeError) as e:
        raise Broken(f"a tool call without function.name and .arguments: {call}") from e
    if not isinstance(arguments, str):
        raise Broken(f"arguments of `{name}` are {type(arguments).__name__}, not text")
    return ToolCall(str(call.get("id") or ""), str(name), arguments, index)


def _add(calls: dict[int, dict[str, str]], part: Any) -> None:
    index = part.get("index") if isinstance(part, dict) else None
    if not isinstance(index, int):
        raise Broken(f"a tool call delta without an index: {part}")
    call = calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
    function = part.get("function") or {}
    if part.get("id"):
        if call["id"] and call["id"] != part["id"]:
            raise Broken(f"call {index} changes its id from {call['id']} to {part['id']}")
        call["id"] = str(part["id"])
    call["name"] += function.get("name") or ""
    call["arguments"] += _text(function, "arguments")


def _usage(body: dict[str, Any]) -> Usage | None:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    values = [usage.get(k) for k in ("prompt_tokens", "completion_tokens", "total_tokens")]
    if not all(isinstance(v, int) for v in values):
        raise Broken(f"usage without three counts: {usage}")
    return Usage(*(int(v) for v in values if v is not None))
