"""A dialogue with the reply that is wanted, and how it reads as the model's input and output.

Rendering is done here in plain Python because millions of dialogues are made; a test holds it
against the shipped chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Message = dict[str, Any]
Tool = dict[str, Any]
Check = Literal["exact", "contains", "calls", "json"]
Style = Literal["plain", "required_first", "compact", "sorted", "verbose", "bare"]

PREAMBLE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
CLOSING = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the assistant shall say: thought, then text and calls."""

    content: str = ""
    thought: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()

    def as_message(self, *, thinking: bool) -> Message:
        """The reply as a message of a conversation that goes on."""
        made: Message = {"role": "assistant", "content": self.content}
        if thinking and self.thought:
            made["reasoning_content"] = self.thought
        if self.calls:
            made["tool_calls"] = [
                {"type": "function", "function": {"name": n, "arguments": a}} for n, a in self.calls
            ]
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Messages up to where the assistant speaks, and what it shall say."""

    skill: str
    messages: tuple[Message, ...]
    reply: Reply
    tools: tuple[Tool, ...] = ()
    style: Style = "plain"
    thinking: bool = True
    """The hard switch."""
    thinks: bool = True
    """Whether the reply shall think, soft switches considered."""
    check: Check = "exact"
    want: tuple[str, ...] = field(default=())
    """For ``contains``: what must be in the answer."""


Piece = tuple[str, float]
"""Text and the weight of its tokens in the loss; -1: history, its first token left out."""
HISTORY = -1.0


def pieces(dialogue: Dialogue) -> list[Piece]:
    """The whole text of a dialogue, prompt and reply, in pieces that tokenise apart."""
    made = [*_prompt(dialogue), (spoken(dialogue.reply, thinks=dialogue.thinks), 1.0)]
    if not dialogue.thinking:
        said = _said(dialogue.reply.content, dialogue.reply.calls)
        made[-2:] = [
            ("<|im_start|>assistant\n<think>\n\n</think>\n\n", 0.0),
            (f"{said}<|im_end|>", 1.0),
        ]
    return made


def prompt_text(dialogue: Dialogue) -> str:
    """What the chat template makes of the request."""
    opening = "" if dialogue.thinking else "<think>\n\n</think>\n\n"
    return "".join(text for text, _ in _prompt(dialogue)) + opening


def spoken(reply: Reply, *, thinks: bool) -> str:
    """A whole reply, end token included, to a prompt that does not forbid thinking."""
    thought = f"<think>\n{reply.thought if thinks else ''}\n</think>\n\n"
    return f"{thought}{_said(reply.content, reply.calls)}<|im_end|>"


def _said(content: str, calls: Any) -> str:
    text = content
    for name, arguments in calls:
        made = arguments if isinstance(arguments, str) else to_json(arguments)
        text += "\n" if text else ""
        text += f'<tool_call>\n{{"name": "{name}", "arguments": {made}}}\n</tool_call>'
    return text


def _prompt(dialogue: Dialogue) -> list[Piece]:
    messages = list(dialogue.messages)
    made: list[Piece] = []
    first_system = messages[0]["content"] if messages[0]["role"] == "system" else None
    if dialogue.tools:
        head = f"{first_system}\n\n" if first_system is not None else ""
        listed = "".join("\n" + tool_text(t, dialogue.style) for t in dialogue.tools)
        made.append(
            (f"<|im_start|>system\n{head}{PREAMBLE}{listed}{CLOSING}<|im_end|>\n", 0.0),
        )
        if first_system is not None:
            messages = messages[1:]
    asked = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    in_results = False
    for i, message in enumerate(messages):
        role, text = message["role"], message["content"]
        if in_results and role != "tool":
            made.append(("<|im_end|>\n", 0.0))
            in_results = False
        if role == "tool":
            opening = "" if in_results else "<|im_start|>user"
            made.append((f"{opening}\n<tool_response>\n{text}\n</tool_response>", 0.0))
            in_results = True
        elif role == "assistant":
            calls = [
                (c["function"]["name"], c["function"]["arguments"])
                for c in message.get("tool_calls", ())
            ]
            thought = message.get("reasoning_content", "")
            made.append(("<|im_start|>assistant\n", 0.0))
            if i > asked and thought:
                made.append((spoken(Reply(text, thought, tuple(calls)), thinks=True), 1.0))
            else:
                made.append((f"{_said(text, calls)}<|im_end|>", HISTORY))
            made.append(("\n", 0.0))
        else:
            made.append((f"<|im_start|>{role}\n{text}<|im_end|>\n", 0.0))
    if in_results:
        made.append(("<|im_end|>\n", 0.0))
    made.append(("<|im_start|>assistant\n", 0.0))
    return made


# ------------------------------------------------------------------------- renderings of tools


def to_json(value: Any) -> str:
    """JSON as the template writes it."""
    return json.dumps(value, ensure_ascii=False)


def tool_text(tool: Tool, style: Style) -> str:
    """A tool as one of several engines would show it."""
    return _STYLES[style](tool)


def _required_first(tool: Tool) -> str:
    function = dict(tool["function"])
    parameters = function.get("parameters")
    if isinstance(parameters, Mapping):
        first = ("type", "required", "properties")
        function["parameters"] = {k: parameters[k] for k in first if k in parameters}
    return to_json({"type": "function", "function": function})


def _verbose(tool: Tool) -> str:
    function = {"description": "", **tool["function"], "strict": False}
    return to_json({"type": "function", "function": function})


_STYLES: dict[Style, Callable[[Tool], str]] = {
    "plain": to_json,
    "required_first": _required_first,
    "compact": lambda tool: json.dumps(tool, ensure_ascii=False, separators=(",", ":")),
    "sorted": lambda tool: json.dumps(
        tool, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    ),
    "verbose": _verbose,
    "bare": lambda tool: to_json(tool["function"]),
}
STYLE_WEIGHTS: dict[Style, float] = {
    "plain": 0.66,
    "required_first": 0.1,
    "compact": 0.06,
    "sorted": 0.08,
    "verbose": 0.07,
    "bare": 0.03,
}


def with_messages(dialogue: Dialogue, *messages: Message) -> Dialogue:
    """The dialogue with other messages."""
    return replace(dialogue, messages=tuple(messages))
