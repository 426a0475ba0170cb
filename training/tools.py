"""Tools: known kinds under many names, and wholly made-up ones with random parameters."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training.dialogue import Tool, to_json
from training.known_tools import KNOWN, Known, Param
from training.lists import LISTS
from training.words import Draw

KEYS = LISTS["keys"]
CURRENCIES = ("EUR", "USD", "€", "dollars")
ORDERS = (
    "Add", "Book", "Check", "Compute", "Find", "Get", "Give", "Look", "Mail", "Make", "Multiply",
    "Open", "Play", "Put", "Read", "Reserve", "Search", "Send", "Set", "Show", "Start", "Tell",
    "Track", "Translate", "Use", "Write",
)  # fmt: skip
"""First words of phrasings that are orders."""
ASKING = ("Can you {}?", "Could you {}?", "Please {}.", "I want you to {}.", "I need you to {}.",
          "Would you {}?", "Now {}.", "Could you please {}?", "Then {}.")  # fmt: skip
Values = tuple[tuple[str, str, Any], ...]
"""Parameter name, how the prompt says the value, the value itself."""


def value_of(draw: Draw, kind: str) -> Any:
    """A random value of a kind."""
    maker = _VALUES.get(kind)
    return maker(draw) if maker else draw.noun()


_VALUES: dict[str, Callable[[Draw], Any]] = {
    "city": lambda d: d.city(),
    "name": lambda d: d.name(),
    "integer": lambda d: d.number(),
    "small": lambda d: d.whole(1, 12),
    "decimal": lambda d: d.decimal(),
    "boolean": lambda d: d.chance(0.5),
    "phrase": lambda d: d.phrase_of(1, 3),
    "title": lambda d: d.title(),
    "thing": lambda d: f"{d.adjective()} {d.noun()}" if d.chance(0.6) else d.noun(),
    "word": lambda d: d.word(),
    "wide": lambda d: d.wide_word(),
    "language": lambda d: d.pick(LISTS["languages"]),
    "room": lambda d: d.pick(LISTS["rooms"]),
    "time": lambda d: d.time(),
    "date": lambda d: d.date(),
    "email": lambda d: d.email(),
    "path": lambda d: d.path(),
    "code": lambda d: d.code(),
    "fullname": lambda d: f"{d.name()} {d.name()}",
}
JSON_TYPES = {"integer": "integer", "small": "integer", "decimal": "number", "boolean": "boolean"}
RANDOM_KINDS: dict[str, float] = {
    "word": 3, "name": 3, "city": 3, "phrase": 1.5, "title": 1.2, "integer": 5, "decimal": 0.6,
    "boolean": 1, "code": 1.2, "date": 0.8, "time": 1, "email": 0.4, "path": 0.4, "wide": 0.4,
    "fullname": 0.8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A tool as it stands in a prompt, with what is needed to ask for it."""

    tool: Tool
    known: Known | None
    params: tuple[tuple[str, Param], ...]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self.tool["function"]["name"])


def make_known(draw: Draw, known: Known) -> Made:
    """A known tool under one of its names, with one of its descriptions."""
    params = tuple((draw.pick(p.names), p) for p in known.params)
    if len({n for n, _ in params}) < len(params):
        params = tuple((p.names[0], p) for p in known.params)
    name = draw.phrase(known.names) if draw.chance(0.96) else function_name(draw)
    return Made(_tool(draw, name, draw.phrase(known.about), params), known, params)


def make_random(draw: Draw, beside: str = "") -> Made:
    """A tool that never was; ``beside`` is the name of one that it may be taken for."""
    count = draw.rng.choices((0, 1, 2, 3, 4), (0.12, 0.37, 0.31, 0.16, 0.04))[0]
    names = draw.rng.sample(KEYS, count)
    kinds = [_random_kind(draw) for _ in names]
    if count > 1 and not draw.held_out and draw.chance(0.1):  # rare by chance, and hard
        kinds[draw.whole(0, count - 1)] = "list"
        kinds[draw.whole(0, count - 1)] = "object"
    params = []
    for key, kind in zip(names, kinds, strict=True):
        if draw.chance(0.05):
            key = draw.syllables()
        members: tuple[tuple[str, str], ...] = ()
        if kind == "object":
            inner = draw.rng.sample(KEYS, 2)
            members = tuple((k, draw.weighted(RANDOM_KINDS)) for k in inner)
        optional = draw.chance(0.15)
        params.append((key, Param((key,), kind, optional=optional, members=members)))
    name = function_name(draw, beside)
    about = _about(draw, name)
    return Made(_tool(draw, name, about, tuple(params)), None, tuple(params))


def _random_kind(draw: Draw) -> str:
    x = draw.rng.random()
    if x < 0.06:
        return "list"
    if x < 0.14:
        return "enum"
    return "object" if x < 0.19 else draw.weighted(RANDOM_KINDS)


def function_name(draw: Draw, beside: str = "") -> str:
    """A name such as ``find_apple``; ``beside`` another, it shares a word with that."""
    verb, noun = draw.verb(), draw.noun()
    if beside.count("_") == 1:
        kept = beside.split("_")
        verb, noun = (kept[0], noun) if draw.chance(0.5) else (verb, kept[1])
    x = draw.rng.random()
    if x < 0.75:
        return f"{verb}_{noun}"
    if x < 0.83:
        return f"{verb}{noun.capitalize()}"
    if x < 0.9:
        return f"{noun}_{verb}"
    return f"{verb}_{draw.adjective()}_{noun}" if x < 0.95 else draw.syllables()


def _about(draw: Draw, name: str) -> str:
    words = name.replace("_", " ")
    return draw.pick(
        [words.capitalize(), f"{words.capitalize()}.", f"Tool to {words}", f"Used to {words}",
         draw.sentence()]
    )  # fmt: skip


def _tool(draw: Draw, name: str, about: str, params: Sequence[tuple[str, Param]]) -> Tool:
    properties: dict[str, Any] = {n: _schema(draw, n, p) for n, p in params}
    required = [n for n, p in params if not p.optional]
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    if draw.chance(0.05):
        parameters["additionalProperties"] = False
    function: dict[str, Any] = {"name": name, "description": about, "parameters": parameters}
    if draw.chance(0.04):
        del function["description"]
    return {"type": "function", "function": function}


def _schema(draw: Draw, name: str, param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": JSON_TYPES.get(param.kind, "string")}
    if param.kind == "list":
        schema = {"type": "array", "items": {"type": "string"}}
    elif param.kind == "enum":
        schema["enum"] = list(dict.fromkeys(draw.word() for _ in range(draw.whole(2, 4))))
    elif param.kind == "object":
        schema = {
            "type": "object",
            "properties": {
                k: {"type": JSON_TYPES.get(kind, "string")} for k, kind in param.members
            },
        }
        if draw.chance(0.6):
            schema["required"] = [k for k, _ in param.members]
    if param.about and draw.chance(0.3):
        schema["description"] = param.about
    elif draw.chance(0.08):
        schema["description"] = f"The {name.replace('_', ' ')}"
    return schema


def arguments_for(draw: Draw, made: Made) -> Values:
    """Values for the parameters of ``made``, some optional ones left out."""
    values: list[tuple[str, str, Any]] = []
    properties = made.tool["function"]["parameters"]["properties"]
    for name, param in made.params:
        if param.optional and (made.known is not None or draw.chance(0.4)):
            continue
        if param.kind == "list":
            items = [
                str(value_of(draw, draw.pick(["name", "word", "city"])))
                for _ in range(draw.whole(1, 3))
            ]
            values.append((name, _listed(draw, items), items))
        elif param.kind == "enum":
            chosen = draw.rng.choice(properties[name]["enum"])
            values.append((name, chosen, chosen))
        elif param.kind == "object":
            held = {k: value_of(draw, kind) for k, kind in param.members}
            values.append((name, "", held))
        else:
            value = value_of(draw, param.kind)
            values.append((name, said(value), value))
    return tuple(values)


def said(value: Any) -> str:
    """A value as a person writes it."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _listed(draw: Draw, items: Sequence[str]) -> str:
    if len(items) > 1 and draw.chance(0.5):
        return f"{', '.join(items[:-1])} and {items[-1]}"
    return ", ".join(items)


def request_for(draw: Draw, made: Made, values: Values) -> str:
    """What a person says to have the tool called with these values."""
    return politely(draw, _request(draw, made, values))


def politely(draw: Draw, text: str) -> str:
    """Now and then with a word before or after."""
    x = draw.rng.random()
    if x < 0.06:
        return f"{draw.pick(['Hi!', 'Hello.', 'Now:', 'Next:', 'Okay.', 'Good.'])} {text}"
    if x < 0.10:
        return f"{text} {draw.pick(['Thanks!', 'Please.', 'Thank you.', 'Be quick.'])}"
    if x < 0.13 and text.endswith("."):
        return f"{text[:-1]}, please."
    return text


def phrasing(draw: Draw, known: Known, *, new: bool = False) -> str:
    """A way to ask for a known tool, with slots; in training, orders turn into questions too."""
    shape = draw.phrase(known.phrases, new=new)
    if draw.held_out or shape.split(" ")[0] not in ORDERS or draw.chance(0.7):
        return shape
    asked = draw.pick(ASKING).format(f"{shape[0].lower()}{shape[1:-1]}")
    return shape if asked == known.phrases[-1] else asked


def _request(draw: Draw, made: Made, values: Values) -> str:
    if made.known is not None and len(values) == len(
        [p for p in made.known.params if not p.optional]
    ):
        return phrasing(draw, made.known, new=not values).format(*(v[1] for v in values))
    words = made.name.replace("_", " ")
    if not values:
        shapes = [f"Call {made.name}.", f"Please {words}.", f"Use {made.name}.",
                  f"{words.capitalize()}.", f"Can you {words}?", f"Run {made.name}, please.",
                  f"I need you to {words}.", f"I would like to {words}.", f"Now {words}.",
                  f"You should {words}.", f"I want {made.name}.", f"Could you {words}?",
                  f"I want you to {words}."]  # fmt: skip
        return draw.phrase(shapes)
    told = list(values)
    if draw.chance(0.15):
        draw.rng.shuffle(told)
    joined = _pairs(draw, told)
    shapes = [
        f"Call {made.name} with {joined}.",
        f"{words.capitalize()} with {joined}.",
        f"Use {made.name}: {joined}.",
        f"Please {words}, {joined}.",
        f"Run {made.name} with {joined}",
        f"I need to {words}: {joined}.",
        f"Can you {words} with {joined}?",
        f"Please call {made.name} with {joined}.",
        f"Please run {made.name}: {joined}.",
        f"Now use {made.name} with {joined}.",
        f"{words.capitalize()}: {joined}.",
        f"Please use {made.name} with {joined}.",
    ]
    verb, _, noun = words.partition(" ")
    if noun and draw.chance(0.35) and not draw.held_out:
        article = "an" if noun[0] in "aeiou" else "a"
        link = draw.pick(["with", "with", "with", "having", "for", "of"])
        return f"{verb.capitalize()} {article} {noun} {link} {joined}."
    return draw.phrase(shapes)


def _pairs(draw: Draw, values: Sequence[tuple[str, str, Any]]) -> str:
    quote = draw.rng.choices(("", '"', "'"), (0.75, 0.17, 0.08))[0]
    equals = draw.rng.choices((" ", "=", ": ", " = "), (0.65, 0.15, 0.15, 0.05))[0]
    spaced = draw.chance(0.3)
    parts = []
    for name, text, value in values:
        shown = name.replace("_", " ") if spaced and equals == " " else name
        if isinstance(value, dict):
            if draw.chance(0.3):
                parts.append(
                    f"{shown} with {' and '.join(f'{k} {said(v)}' for k, v in value.items())}"
                )
            else:
                parts += [f"{k}{equals}{_quoted(v, quote)}" for k, v in value.items()]
        elif isinstance(value, list):
            parts.append(f"{shown}{equals}{text}")
        else:
            parts.append(f"{shown}{equals}{_quoted(value, quote)}")
    if len(parts) > 1 and draw.chance(0.5):
        return f"{', '.join(parts[:-1])} and {parts[-1]}"
    return ", ".join(parts)


def _quoted(value: Any, quote: str) -> str:
    return f"{quote}{value}{quote}" if isinstance(value, str) else said(value)


def result_text(draw: Draw, kind: str) -> tuple[str, str]:
    """What a tool returns, and how the answer says it."""
    if kind == "object" or (kind == "any" and draw.chance(0.4)):
        keys = draw.rng.sample(KEYS, draw.whole(1, 3))
        held = {k: value_of(draw, draw.weighted(RANDOM_KINDS)) for k in keys}
        shown = ", ".join(f"{k.replace('_', ' ')} {said(v)}" for k, v in held.items())
        return to_json(held), shown
    maker = _RESULTS.get(kind, _RESULTS["phrase"])
    text = str(maker(draw))
    return text, text.rstrip(".") if kind != "sentence" else text


_RESULTS: dict[str, Callable[[Draw], Any]] = {
    "degrees": lambda d: f"{d.whole(-20, 45)}{d.pick([' °C', ' °C', '°C', ' degrees', ' C', ''])}",
    "sky": lambda d: f"{d.pick(LISTS['skies'])}{d.pick([', ', ' and '])}{d.whole(-20, 45)} °C",
    "time": lambda d: d.time(),
    "integer": lambda d: d.number(),
    "sentence": lambda d: d.sentence(),
    "done": lambda d: d.pick(LISTS["states"]) if d.chance(0.5) else d.word(),
    "phrase": lambda d: d.phrase_of(1, 4),
    "price": lambda d: f"{d.whole(1, 99)}.{d.whole(10, 99)} {d.pick(CURRENCIES)}",
    "code": lambda d: d.code(),
    "email": lambda d: d.email(),
    "date": lambda d: d.date(),
    "any": lambda d: value_of(d, d.weighted(RANDOM_KINDS)),
}


def some_tools(draw: Draw, count: int) -> list[Made]:
    """``count`` tools of different names, in random order."""
    made: list[Made] = []
    kinds: Sequence[Known] = random.Random(draw.rng.random()).sample(KNOWN, count)
    for known in kinds:
        beside = made[-1].name if made and not draw.held_out and draw.chance(0.25) else ""
        each = make_known(draw, known) if draw.chance(0.5) else make_random(draw, beside)
        if each.name not in {m.name for m in made}:
            made.append(each)
    return made
