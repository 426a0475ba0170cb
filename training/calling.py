"""Calling tools, and using what they return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.dialogue import STYLE_WEIGHTS, Dialogue, Message, Reply, Style
from training.known_tools import KNOWN
from training.small import (
    earlier_talk,
    echo_one,
    plain_fact,
    small_talk_one,
    system_of,
    tool_result,
    user,
)
from training.tools import (
    Made,
    Values,
    arguments_for,
    make_known,
    phrasing,
    request_for,
    result_text,
    said,
    some_tools,
)
from training.words import Draw

# -------------------------------------------------------------------------------------- calling


def call_thought(draw: Draw, made: Made, values: Values) -> str:
    """A short thought before a call."""
    shown = ", ".join(f"{n} {said(v)}" for n, _, v in values if not isinstance(v, dict | list))
    told = f" with {shown}" if shown else ""
    return draw.pick(
        [f"I call {made.name}{told}.", f"The tool {made.name} is right here{told}.",
         f"I should call {made.name}{told}.", f"The user needs {made.name}{told}."]
    )  # fmt: skip


def arguments_of(values: Values) -> dict[str, Any]:
    """The arguments of a call."""
    return {n: v for n, _, v in values}


def _base(draw: Draw) -> tuple[tuple[Message, ...], list[Made], Style]:
    # Training has more to choose from than the score.
    weights = (0.45, 0.3, 0.18, 0.07) if draw.held_out else (0.26, 0.34, 0.28, 0.12)
    count = draw.rng.choices((1, 2, 3, 4), weights)[0]
    style: Style = draw.weighted(STYLE_WEIGHTS)  # type: ignore[arg-type, assignment]
    return system_of(draw), some_tools(draw, count), style


def tool_calls(draw: Draw, count: int = 7) -> list[Dialogue]:
    """Calls of one tool, or two, of the tools at hand; now and then none is needed."""
    system, tools, style = _base(draw)
    listed = tuple(m.tool for m in tools)
    made = []
    for _ in range(count):
        x = draw.rng.random()
        if x < 0.57:
            one = _one_call(draw, system, tools)
        elif x < 0.84:
            one = _two_calls(draw, system, tools)
        else:
            one = _no_call(draw, system, tools)
        made.append(replace(one, tools=listed, style=style))
    return made


def _one_call(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    chosen = draw.rng.choice(tools)
    values = arguments_for(draw, chosen)
    asked = request_for(draw, chosen, values)
    call = (chosen.name, arguments_of(values))
    reply = Reply("", call_thought(draw, chosen, values), (call,))
    before = earlier_talk(draw) if draw.chance(0.1) else ()
    return Dialogue(
        skill="call", messages=(*system, *before, user(asked)), reply=reply, check="calls"
    )


def _two_calls(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    first = draw.rng.choice(tools)
    same = first.known is not None and len(first.params) == 1 and draw.chance(0.7)
    second = first if same or len(tools) == 1 else draw.rng.choice(tools)
    values = [arguments_for(draw, m) for m in (first, second)]
    if same:
        while values[1] == values[0]:
            values[1] = arguments_for(draw, second)
        both = [v[0][1] for v in values]
        joint = draw.phrase(
            ["{} and {}", "{} and in {}", "{}, and {}", "{} and then {}", "{}, also {}",
             "{} as well as {}", "{}, then also {}", "{} and also {}"]
        )  # fmt: skip
        if "in {0}" not in " ".join(first.known.phrases if first.known else ()):
            joint = "{} and {}"
        shown = joint.format(*both)
        asked = (phrasing(draw, first.known) if first.known else "{0}").format(shown)
    else:
        parts = [request_for(draw, m, v) for m, v in zip((first, second), values, strict=True)]
        asked = f"{parts[0]} {draw.pick(['', 'Then: ', 'And: ', 'Also: '])}{parts[1]}"
    calls = tuple((m.name, arguments_of(v)) for m, v in zip((first, second), values, strict=True))
    if calls[0] == calls[1]:
        return _one_call(draw, system, tools)
    thought = draw.pick(
        [f"Two calls: {first.name} and {second.name}.", f"I call {first.name}, then {second.name}.",
         "Both can be asked at once."]
    )  # fmt: skip
    return Dialogue(
        skill="two calls",
        messages=(*system, user(asked)),
        reply=Reply("", thought, calls),
        check="calls",
    )


def _no_call(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    x = draw.rng.random()
    topics = {m.known.topic for m in tools if m.known}
    if x < 0.25:
        known = draw.rng.choice(KNOWN)
        if known.topic not in topics and not (known.topic.startswith("time") and topics):
            absent = make_known(draw, known)
            asked = request_for(draw, absent, arguments_for(draw, absent))
            return replace(_cannot(draw, known.topic, system, asked), skill="no call")
    maker = draw.rng.choice((plain_fact, echo_one, small_talk_one, plain_fact))
    return replace(maker(draw, system), skill="no call")


def _cannot(draw: Draw, topic: str, system: tuple[Message, ...], asked: str) -> Dialogue:
    answer = draw.pick([f"I have no tool for {topic}.", f"There is no tool for {topic} here."])
    thought = f"No tool is there for {topic}."
    return Dialogue(
        skill="no tool",
        messages=(*system, user(asked)),
        reply=Reply(answer, thought),
        check="contains",
        want=("no tool",),
    )


def tool_questions_without_tools(draw: Draw, count: int = 3) -> list[Dialogue]:
    """What a tool would answer, and no tool is there."""
    system = system_of(draw)
    made = []
    for _ in range(count):
        known = draw.rng.choice([k for k in KNOWN if k.topic not in ("adding", "multiplying")])
        absent = make_known(draw, known)
        asked = request_for(draw, absent, arguments_for(draw, absent))
        made.append(_cannot(draw, known.topic, system, asked))
    return made


# -------------------------------------------------------------------------------------- results


def tool_results(draw: Draw, count: int = 5) -> list[Dialogue]:
    """The turn after the tool has answered."""
    system, tools, style = _base(draw)
    listed = tuple(m.tool for m in tools)
    makers = (_result, _result, _result, _two_results, _chain)
    return [
        replace(draw.rng.choice(makers)(draw, system, tools), tools=listed, style=style)
        for _ in range(count)
    ]


def _asked(draw: Draw, made: Made) -> tuple[Message, Message, Values]:
    values = arguments_for(draw, made)
    call = Reply("", call_thought(draw, made, values), ((made.name, arguments_of(values)),))
    return user(request_for(draw, made, values)), call.as_message(thinking=True), values


def _answer(draw: Draw, made: Made, values: Values) -> tuple[str, str, str]:
    """What the tool returns, what the assistant says, and the part of it that counts."""
    if draw.chance(0.06):
        told = draw.pick(["not found", "no access", "timeout", "unknown", "failed"])
        about = draw.word()
        error = draw.pick([f"error: {about} {told}", f'{{"error": "{about} {told}"}}'])
        return error, f"The tool failed: {about} {told}.", f"{about} {told}"
    if made.known is not None and draw.chance(0.85):
        text, shown = result_text(draw, draw.pick(made.known.results))
        shape = draw.pick(made.known.answers)
        slots = [v[1] for v in values] + ["it"] * 3
        return text, shape.format(*slots, r=shown), shown
    text, shown = result_text(draw, "any")
    name = made.name.replace("_", " ")
    shapes = [f"The result is {shown}.", f"It is {shown}.", f"The tool says: {shown}.",
              f"Result of {name}: {shown}."]  # fmt: skip
    return text, draw.pick(shapes), shown


def _result(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    chosen = draw.rng.choice(tools)
    question, call, values = _asked(draw, chosen)
    text, answer, shown = _answer(draw, chosen, values)
    thought = draw.pick([f"The tool says {shown}.", "Now I can answer.", f"It gave {shown}."])
    before = earlier_talk(draw) if draw.chance(0.08) else ()
    return Dialogue(
        skill="result",
        messages=(*system, *before, question, call, tool_result(text)),
        reply=Reply(answer, thought),
        check="contains",
        want=(shown,),
    )


def _two_results(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    asking = _two_calls(draw, system, tools)
    calls = asking.reply.calls
    results = [result_text(draw, draw.pick(["degrees", "any", "phrase", "time"])) for _ in calls]
    names = [
        next((said(v) for v in a.values() if isinstance(v, str)), n.replace("_", " "))
        for n, a in calls
    ]
    parts = [f"{n}: {shown}" for n, (_, shown) in zip(names, results, strict=True)]
    return Dialogue(
        skill="two results",
        messages=(
            *asking.messages,
            asking.reply.as_message(thinking=True),
            *(tool_result(text) for text, _ in results),
        ),
        reply=Reply(f"{'; '.join(parts)}.", draw.pick(["Both are there.", "I have the results."])),
        check="contains",
        want=tuple(shown for _, shown in results),
    )


def _chain(draw: Draw, system: tuple[Message, ...], tools: list[Made]) -> Dialogue:
    """A question after an earlier tool loop: its thinking is gone from the prompt."""
    done = _result(draw, system, tools)
    again = draw.rng.choice(tools)
    if draw.chance(0.4):
        values = arguments_for(draw, again)
        call = (again.name, arguments_of(values))
        return Dialogue(
            skill="call again",
            messages=(
                *done.messages,
                done.reply.as_message(thinking=False),
                user(request_for(draw, again, values)),
            ),
            reply=Reply("", call_thought(draw, again, values), (call,)),
            check="calls",
        )
    question, call_message, values = _asked(draw, again)
    text, answer, shown = _answer(draw, again, values)
    return Dialogue(
        skill="result",
        messages=(
            *done.messages,
            done.reply.as_message(thinking=False),
            question,
            call_message,
            tool_result(text),
        ),
        reply=Reply(answer, f"The tool says {shown}."),
        check="contains",
        want=(shown,),
    )
