"""OpenAI's messages: every form that clients use, brought into the one that templates know.

Qwen3's template renders a list of parts as nothing and, in one of its revisions, fails on null,
so contents become text here, and null becomes empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from qwharf.gateway.errors import ApiError, bad
from qwharf.gateway.fields import JsonObject, shown
from qwharf.gateway.openai_tools import call_arguments

ROLES = ("system", "developer", "user", "assistant", "tool")
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names in use for an earlier turn's thinking; the first is the one that we answer with."""
TEXT_PARTS = ("text", "input_text", "output_text")
PART_SEPARATOR = "\n"
"""Between the text parts of one message, as other engines have it."""

_SWITCH = re.compile(r"(?<![\w/])/(no_)?think(?![\w/])")


def messages(found: Any) -> Sequence[JsonObject]:
    """The conversation, normalised.

    Raises:
        ApiError: 400, with the place of what is wrong.
    """
    if found is None:
        raise bad("messages", "`messages` is missing.", "missing_required_parameter")
    if not isinstance(found, list) or not found:
        wanted = "a list with at least one message"
        raise bad("messages", f"`messages` is {_what(found)}; expected {wanted}.")
    return [_message(m, f"messages[{i}]") for i, m in enumerate(found)]


def _what(value: Any) -> str:
    return "an empty list" if value == [] else shown(value)


def _message(message: Any, at: str) -> JsonObject:
    if not isinstance(message, dict):
        raise bad(at, f"`{at}` is {shown(message)}; expected an object with `role` and `content`.")
    role = message.get("role")
    if role not in ROLES:
        hint = " (of old function calling: use `tool`)" if role == "function" else ""
        raise bad(
            f"{at}.role", f"`{at}.role` is {shown(role)}{hint}; expected one of {', '.join(ROLES)}."
        )
    content = _content(message, role, f"{at}.content")
    made: JsonObject = {"role": "system" if role == "developer" else role, "content": content}
    if role == "assistant":
        made |= _assistant(message, at)
    elif role == "tool" and message.get("tool_call_id") is not None:
        made["tool_call_id"] = _text(message["tool_call_id"], f"{at}.tool_call_id")
    return made


def _content(message: JsonObject, role: str, at: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None:
        if role in ("assistant", "tool") or "content" in message:
            return ""
        raise bad(at, f"`{at}` is missing.", "missing_required_parameter")
    if isinstance(content, list):
        return PART_SEPARATOR.join(_part(p, f"{at}[{i}]") for i, p in enumerate(content))
    raise bad(at, f"`{at}` is {shown(content)}; expected text or a list of text parts.")


def _part(part: Any, at: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise bad(at, f"`{at}` is {shown(part)}; expected a part of type `text`.")
    kind = part.get("type")
    if kind in TEXT_PARTS:
        return _text(part.get("text"), f"{at}.text")
    if kind == "refusal":
        return _text(part.get("refusal"), f"{at}.refusal")
    raise bad(
        at,
        f"`{at}` is of type {shown(kind)}; Qwen3 reads text only, expected a part of type `text`.",
        "unsupported_content",
    )


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise bad(at, f"`{at}` is {shown(value)}; expected text.")
    return value


def _assistant(message: JsonObject, at: str) -> JsonObject:
    made: JsonObject = {}
    for name in REASONING_FIELDS:
        if message.get(name):
            made["reasoning_content"] = _text(message[name], f"{at}.{name}")
            break
    if message.get("function_call") is not None:
        raise _old(f"{at}.function_call", "`tool_calls`")
    calls = message.get("tool_calls")
    if calls is None or calls == []:
        return made
    if not isinstance(calls, list):
        raise bad(f"{at}.tool_calls", f"`{at}.tool_calls` is {shown(calls)}; expected a list.")
    made["tool_calls"] = [_call(c, f"{at}.tool_calls[{i}]") for i, c in enumerate(calls)]
    return made


def _old(at: str, instead: str) -> ApiError:
    return bad(
        at, f"`{at}` is of the old function calling; use {instead}.", "unsupported_parameter"
    )


def _call(call: Any, at: str) -> JsonObject:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise bad(at, f"`{at}` has no `function` object.")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise bad(f"{at}.function.name", f"`{at}.function.name` is {shown(name)}; expected text.")
    arguments = call_arguments(function.get("arguments"), f"{at}.function.arguments")
    made: JsonObject = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if call.get("id") is not None:
        made["id"] = _text(call["id"], f"{at}.id")
    return made


def soft_switch(conversation: Iterable[JsonObject]) -> bool | None:
    """What the last ``/think`` or ``/no_think`` of the user or the system says.

    A habit that Qwen3 was trained on, not a function of the template; it has no effect while
    ``enable_thinking`` is false.
    """
    for message in reversed(list(conversation)):
        if message["role"] not in ("user", "system"):
            continue
        switches = list(_SWITCH.finditer(message["content"]))
        if switches:
            return switches[-1][1] is None
    return None
