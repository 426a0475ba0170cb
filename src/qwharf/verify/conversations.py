"""Conversations that between them use every branch of Qwen3's chat template.

Left out by construction, because servers differ from the bare template without harm: conversations
that end with an assistant message (servers continue it), call arguments that are not a JSON object
(servers refuse them), and ``reasoning_content`` beside a think block in the same content.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from qwharf.types import Thinking
from qwharf.verify.target import Message, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One request whose rendering is compared."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    thinking: bool | None = None


def tool(name: str, description: str, properties: dict[str, Any], *required: str) -> Tool:
    """A function tool in OpenAI's shape; keys in the order that most clients use."""
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = list(required)
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def call(name: str, id: str = "call_1", **arguments: Any) -> dict[str, Any]:
    """A tool call of an assistant message; arguments as text, spaced as the template does."""
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def user(content: str) -> Message:
    """A user message."""
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    """A system message."""
    return {"role": "system", "content": content}


def assistant(content: str, *calls: dict[str, Any], reasoning: str | None = None) -> Message:
    """An assistant message."""
    made: Message = {"role": "assistant", "content": content}
    if reasoning is not None:
        made["reasoning_content"] = reasoning
    if calls:
        made["tool_calls"] = list(calls)
    return made


def result(content: str, id: str = "call_1") -> Message:
    """A tool's result."""
    return {"role": "tool", "tool_call_id": id, "content": content}


WEATHER = tool("get_weather", "Get the weather in a city", {"city": {"type": "string"}}, "city")
TIME = tool("get_time", "Get the current time", {})
ODD = tool(
    "search_notes",
    'Find <notes> & "files" – größer als 5 €',
    {
        "zeit": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "art": {"type": "string", "enum": ["neu", "alt", "日本"], "title": "Art"},
        "filters": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"key": {"type": "string"}, "exact": {"type": "boolean"}},
                "required": ["key"],
                "additionalProperties": False,
            },
        },
    },
    "filters",
)
"""Keys out of order, characters that HTML escaping would change, keywords that some drop."""


def conversations(kind: Thinking) -> tuple[Conversation, ...]:
    """The written ones, for a model of ``kind``: only hybrid ones are asked with the switch."""
    plain = tuple(_written())
    if kind != "hybrid":
        return plain
    off = tuple(
        Conversation(name=f"{c.name}, off", messages=c.messages, tools=c.tools, thinking=False)
        for c in plain
        if c.name in ("one question", "system", "tools", "tool result", "reasoning history")
    )
    on = Conversation(name="one question, on", messages=plain[0].messages, thinking=True)
    return (*plain, on, *off)


def _written() -> Iterator[Conversation]:
    def made(name: str, *messages: Message, tools: tuple[Tool, ...] = ()) -> Conversation:
        return Conversation(name=name, messages=messages, tools=tools)

    yield made("one question", user("What is 2+2?"))
    yield made("system", system("Be brief."), user("Hi"))
    yield made("turns", user("Hi"), assistant("Hello!"), user("Who are you?"))
    yield made("other scripts", user("Grüße, 你好, 🦜 & <b>„x“</b>\n\n  two lines \n"))
    yield made("spaces kept", system("  a  "), user("\n\nb\n"), assistant("c \n"), user(" d"))
    yield made("system in the middle", user("a"), system("mid"), user("b"))
    yield made("two answers in a row", user("a"), assistant("b"), assistant("c"), user("d"))
    yield made("inline thinking", user("a"), assistant("<think>\nr\n</think>\n\nb"), user("c"))
    yield made("soft switch", user("a /no_think"), assistant("b"), user("c /think"))
    yield made("reasoning history", user("a"), assistant("b", reasoning="r"), user("c"))
    yield made("tools", user("Weather in Köln?"), tools=(WEATHER,))
    yield made("tools and system", system("Be brief."), user("W?"), tools=(WEATHER, TIME))
    yield made("odd schema", user("?"), tools=(ODD,))
    yield made(
        "tool result",
        user("Weather in Köln?"),
        assistant("", call("get_weather", city="Köln")),
        result("17 °C"),
        tools=(WEATHER,),
    )
    yield made(
        "parallel calls",
        user("Weather in Rome and Oslo?"),
        assistant("", call("get_weather", "a", city="Rome"), call("get_weather", "b", city="Oslo")),
        result("21", "a"),
        result("9", "b"),
        tools=(WEATHER,),
    )
    yield made(
        "reasoning in a tool loop",
        user("Weather in Köln, then the time?"),
        assistant("Let me see.", call("get_weather", city="Köln"), reasoning="first\n\nthis"),
        result('{"zeit": 1, "art": "<x>"}'),
        assistant("", call("get_time", "call_2"), reasoning="now that"),
        result("12:30", "call_2"),
        tools=(WEATHER, TIME),
    )
    yield made(
        "tool loop, then a new question",
        user("Weather in Köln?"),
        assistant("", call("get_weather", city="Köln"), reasoning="r1"),
        result("5"),
        assistant("It is 5", reasoning="r2"),
        user("thx"),
        tools=(WEATHER,),
    )
    yield made(
        "nested arguments",
        user("Find"),
        assistant(
            "",
            call("search_notes", zeit=2, filters=[{"key": 'ü "q" \\', "exact": True}], art="日本"),
        ),
        result("none"),
        tools=(ODD,),
    )
    yield made(
        "two searches without text",
        user("Find"),
        assistant("", call("get_time")),
        result("08:00"),
        assistant("", call("get_time", "call_2")),
        result("", "call_2"),
        assistant("done"),
        user("<tool_response>\nnot a result, but close"),
        tools=(TIME,),
    )


WORDS = ("Köln", "rain", "7", "<i>", "“no”", "你", "🚀", "a\nb", "  ", "x & y", "done.", "/think")


def random_conversations(kind: Thinking, count: int, seed: int) -> Iterator[Conversation]:
    """``count`` further ones, the same for the same seed; they end with a user or a result."""
    rng = random.Random(seed)  # noqa: S311 - variety, not secrecy
    for number in range(count):
        messages: list[Message] = []
        if rng.random() < 0.4:
            messages.append(system(_text(rng)))
        tools = tuple(rng.sample((WEATHER, TIME, ODD), rng.randint(0, 3)))
        for turn in range(rng.randint(1, 4)):
            messages.append(user(_text(rng)))
            last = turn == 3
            for step in range(rng.randint(0, 2)):
                id = f"call_{turn}_{step}"
                reasoning = _text(rng) if rng.random() < 0.5 else None
                calls = [
                    call("get_weather", f"{id}_{n}", city=_text(rng), days=rng.randint(0, 9))
                    for n in range(rng.randint(1, 2))
                ]
                text = _text(rng) if rng.random() < 0.3 else ""
                messages.append(assistant(text, *calls, reasoning=reasoning))
                messages += [result(_text(rng), c["id"]) for c in calls]
            if not last and rng.random() < 0.7:
                reasoning = _text(rng) if rng.random() < 0.5 else None
                messages.append(assistant(_text(rng), reasoning=reasoning))
        if messages[-1]["role"] == "assistant":
            messages.append(user(_text(rng)))
        thinking = rng.choice((None, True, False)) if kind == "hybrid" else None
        yield Conversation(
            name=f"random {number}", messages=tuple(messages), tools=tools, thinking=thinking
        )


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))
