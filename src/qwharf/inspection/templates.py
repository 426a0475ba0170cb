"""Which of Qwen3's chat templates a template is, judged by what it renders.

Texts of one and the same template differ (comments, white space, fixes), so what counts is whether
a set of conversations comes out the same, byte for byte. What each kind must render is written
here as a program of its own; it is held against the hashes of Qwen's templates in the tests.
Source of the rules: Qwen's ``tokenizer_config.json`` and ``qwen3_nonthinking.jinja``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.inspection.report import Template

Message = Mapping[str, Any]

PUBLISHED = {
    "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5": "Qwen3 (April 2025)",
}
"""Texts seen, by sha256 as they were stored."""

TOOL: Message = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in °C",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CALL = {"function": {"name": "get_weather", "arguments": {"city": "Köln"}}}
_TEXT_CALL = {"function": {"name": "get_weather", "arguments": '{"city":"Köln"}'}}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


_BRIEF = {"role": "system", "content": "Be brief."}
_LOOP = (
    _user("W?"),
    _assistant("Let me see.", reasoning_content="r1", tool_calls=[_TEXT_CALL]),
    {"role": "tool", "content": "5"},
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One case."""

    name: str
    messages: tuple[Message, ...]
    tools: bool = False
    thinking: bool = True
    open: bool = True
    """Whether the assistant's turn is opened at the end."""


CONVERSATIONS = (
    Conversation("a question", (_user("Hi"),)),
    Conversation("thinking switched off", (_user("Hi"),), thinking=False),
    Conversation("a system message", (_BRIEF, _user("Hi"))),
    Conversation(
        "an earlier thought",
        (_user("a"), _assistant("<think>\nr1\n</think>\n\nA"), _user("b")),
    ),
    Conversation("an answer at the end", (_user("a"), _assistant("A")), open=False),
    Conversation(
        "an answer with its thought",
        (_user("a"), _assistant("A", reasoning_content="r1")),
        open=False,
    ),
    Conversation("tools and a system message", (_BRIEF, _user("W?")), tools=True),
    Conversation("tools", (_user("W?"),), tools=True),
    Conversation(
        "two calls and their results",
        (
            _user("W?"),
            _assistant("<think>\nr1\n</think>\n\n", tool_calls=[_CALL, _CALL]),
            {"role": "tool", "content": "5"},
            {"role": "tool", "content": "6"},
        ),
        tools=True,
    ),
    Conversation("text before a call", _LOOP, tools=True),
    Conversation(
        "a question after a call",
        (*_LOOP, _assistant("It is 5", reasoning_content="r2"), _user("thx")),
        tools=True,
    ),
    Conversation(
        "two answers in a row", (_user("a"), _assistant("A1"), _assistant("A2")), open=False
    ),
    Conversation(
        "a system message in the middle",
        (_user("a"), {"role": "system", "content": "mid"}, _user("b")),
    ),
)

KINDS = ("Qwen3 hybrid", "Qwen3 non-thinking", "Qwen3 Thinking-2507", "Qwen3 Instruct-2507")


def recognise(template: str) -> Template:
    """Which Qwen3 template this is; never raises, however broken it is."""
    from qwharf.formats.chat_template import render

    made: dict[str, str | None] = {}
    for case in CONVERSATIONS:
        try:
            made[case.name] = render(
                template,
                case.messages,
                [TOOL] if case.tools else None,
                add_generation_prompt=case.open,
                enable_thinking=case.thinking,
            )
        except InvalidFile:
            made[case.name] = None
    wrong = {
        kind: tuple(c.name for c in CONVERSATIONS if made[c.name] != expected(kind, c))
        for kind in KINDS
    }
    nearest = min(KINDS, key=lambda kind: len(wrong[kind]))
    near = len(wrong[nearest]) <= len(CONVERSATIONS) // 2
    raw = hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()
    text = template.strip().encode("utf-8", "surrogatepass")
    return Template(
        characters=len(template),
        sha256=hashlib.sha256(text).hexdigest(),
        kind=nearest if near else None,
        published=raw in PUBLISHED,
        conversations=len(CONVERSATIONS),
        differs_in=wrong[nearest] if near else (),
    )


# ------------------------------------------------------------------------- what must be rendered

_PREAMBLE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_CLOSING = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
"""The words that the models were trained with; they are part of the format."""


def expected(kind: str, case: Conversation) -> str:
    """What the template of that kind makes of the conversation."""
    messages = case.messages
    query = _last_query(messages)
    out = [_head(messages, case.tools)]
    for i, message in enumerate(messages):
        role, content = str(message["role"]), str(message["content"])
        if role == "user" or (role == "system" and i):
            out.append(_turn(role, content))
        elif role == "assistant":
            thought = None if kind == "Qwen3 Instruct-2507" else i > query
            out.append(_answer(message, thought, last=i == len(messages) - 1))
        elif role == "tool":
            first = not i or messages[i - 1]["role"] != "tool"
            last = i == len(messages) - 1 or messages[i + 1]["role"] != "tool"
            out.append("<|im_start|>user" if first else "")
            out.append(f"\n<tool_response>\n{content}\n</tool_response>")
            out.append("<|im_end|>\n" if last else "")
    if case.open:
        out.append("<|im_start|>assistant\n" + _opening(kind, case.thinking))
    return "".join(out)


def _turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def _opening(kind: str, thinking: bool) -> str:
    if kind == "Qwen3 Thinking-2507":
        return "<think>\n"
    closed = kind == "Qwen3 non-thinking" or (kind == "Qwen3 hybrid" and not thinking)
    return "<think>\n\n</think>\n\n" if closed else ""


def _head(messages: Sequence[Message], tools: bool) -> str:
    system = str(messages[0]["content"]) if messages[0]["role"] == "system" else None
    if not tools:
        return "" if system is None else _turn("system", system)
    listed = "\n" + json.dumps(TOOL, ensure_ascii=False)
    intro = "" if system is None else system + "\n\n"
    return _turn("system", intro + _PREAMBLE + listed + _CLOSING)


def _last_query(messages: Sequence[Message]) -> int:
    found = [i for i, m in enumerate(messages) if m["role"] == "user"]
    return found[-1] if found else len(messages) - 1


def _answer(message: Message, shows_thought: bool | None, *, last: bool) -> str:
    """An assistant's turn; ``None``: by a template that knows no thoughts."""
    content = str(message["content"])
    thought = str(message.get("reasoning_content", ""))
    if shows_thought is not None and not thought and "</think>" in content:
        before, _, content = content.rpartition("</think>")
        thought = before.split("<think>")[-1].strip("\n")
        content = content.lstrip("\n")
    if shows_thought and (last or thought):
        body = f"<think>\n{thought}\n</think>\n\n{content}"
    else:
        body = content
    for n, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        body += "\n" if n or content else ""
        body += f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n'
        body += "</tool_call>"
    return _turn("assistant", body)
