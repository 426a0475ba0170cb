"""Tool calls: structured, complete, the same streamed and whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from qwharf.verify.contract import THINKS, Broken, Unclear, Weak, check, first_success
from qwharf.verify.conversations import TIME, WEATHER, assistant, call, result, tool, user
from qwharf.verify.probe import Probe
from qwharf.verify.replies import Reply, ToolCall, shown
from qwharf.verify.schema import violation
from qwharf.verify.target import Tool
from qwharf.verify.thinking import no_leak, on, thinking_sampling

CITIES = ("Paris", "Rome", "Berlin")
ADD = tool(
    "add",
    "Add two numbers",
    {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "a",
    "b",
)
EVENT = tool(
    "create_event",
    "Create an event",
    {
        "title": {"type": "string"},
        "location": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "street": {"type": "string"}},
            "required": ["city", "street"],
        },
        "attendees": {"type": "array", "items": {"type": "string"}},
    },
    "title",
    "location",
    "attendees",
)
CALL_TOKENS = 160


def calls_of(probe: Probe, reply: Reply, tools: Sequence[Tool]) -> tuple[ToolCall, ...] | None:
    """The calls of a reply that keeps to the contract; ``None`` if the model made none.

    Raises:
        Broken: a call is there, but not as OpenAI has it, or it leaks into text.
    """
    if reply.fumbled():
        return None
    no_leak(reply)
    if not reply.tool_calls:
        _accounted(probe, reply)
        return None
    if reply.finish_reason == "length":
        return None  # the model rambled into the limit; what came of the call proves nothing
    if reply.finish_reason != "tool_calls":
        raise Broken(f"finish_reason is `{reply.finish_reason}` although a tool is called")
    known = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
    for made in reply.tool_calls:
        if not made.id:
            raise Broken(f"the call of `{made.name}` has no id")
        wrong = violation(made.parsed(), known[made.name]) if made.name in known else "unknown"
        if wrong:
            return None  # well formed, but not what was asked: the model's own doing
    ids = [made.id for made in reply.tool_calls]
    if len(set(ids)) < len(ids):
        raise Broken(f"ids of calls are not unique: {', '.join(ids)}")
    return reply.tool_calls


def _accounted(probe: Probe, reply: Reply) -> None:
    """Text that was generated but is nowhere in the reply was swallowed by a parser.

    Raises:
        Broken: more than a call's worth of tokens is missing.
    """
    if probe.target.reference is None or reply.usage is None:
        return
    said = reply.text + "".join(
        f'<tool_call>\n{{"name": "{c.name}", "arguments": {c.arguments}}}\n</tool_call>\n'
        for c in reply.tool_calls
    )
    there = len(probe.reference.tokenizer.encode(said))
    # Room for an empty think block, the end token and other spacing; a lost call is longer.
    if reply.usage.completion_tokens > there + 10 + there // 8:
        raise Broken(
            f"{reply.usage.completion_tokens} tokens were generated, but only "
            f"{shown(said)} came out"
        )


def _calling(
    probe: Probe,
    prompts: Sequence[str],
    tools: Sequence[Tool],
    right: Callable[[int, tuple[ToolCall, ...]], bool],
    otherwise: str,
    **wishes: Any,
) -> str:
    """Ask until a reply has the right calls; what they were."""

    def attempt(number: int) -> str:
        asked: dict[str, Any] = {"thinking": probe.off, "max_tokens": CALL_TOKENS} | wishes
        reply = probe.chat(prompts[number], tools=tools, **asked)
        calls = calls_of(probe, reply, tools)
        if calls is None:
            raise Weak(described(reply.tool_calls) or shown(reply.text[-60:]))
        if not right(number, calls):
            raise Weak(described(calls))
        return described(calls)

    return first_success(attempt, range(len(prompts)), otherwise)


def described(calls: Sequence[ToolCall]) -> str:
    """Calls in a report, long arguments cut."""
    plain = [" ".join(c.arguments.split()) for c in calls]
    cut = [a if len(a) <= 100 else f"{a[:99]}…" for a in plain]
    return ", ".join(f"{c.name}({a})" for c, a in zip(calls, cut, strict=True))


def _cities(made: ToolCall) -> set[str]:
    """The words of the city asked for: "Paris, France" is right as well."""
    return set(re.findall(r"\w+", str(made.parsed().get("city", "")).casefold()))


def _weather(number: int, calls: tuple[ToolCall, ...]) -> bool:
    return len(calls) == 1 and CITIES[number].casefold() in _cities(calls[0])


@check(
    "tool-call",
    title="a tool is called",
    sends='"What is the weather in Paris?" with get_weather (up to 3 cities)',
    expected=(
        "one structured call with the right city, arguments as JSON text, an id, finish_reason "
        "`tool_calls`, no `<tool_call>` in content"
    ),
    meaning="Agents and tools do not work on this deployment.",
)
def tool_call(probe: Probe) -> str:
    """The simplest call there is."""
    return _calling(
        probe,
        [f"What is the weather in {c}?" for c in CITIES],
        [WEATHER],
        _weather,
        f"no right call in {len(CITIES)} tries",
    )


@check(
    "tool-call-while-thinking",
    title="a tool is called after thinking",
    sends='"What is the weather in Paris?" with get_weather and thinking on (up to 3 cities)',
    expected="the thinking in its field, the call in its own, nothing of either in content",
    meaning="Tools work only with thinking off.",
    thinking=THINKS,
)
def tool_call_while_thinking(probe: Probe) -> str:
    """Two parsers at once."""
    return _calling(
        probe,
        [f"What is the weather in {c}?" for c in CITIES],
        [WEATHER],
        _weather,
        f"no right call in {len(CITIES)} tries",
        thinking=on(probe),
        max_tokens=768,
        **thinking_sampling(probe, 1),
    )


@check(
    "tool-call-stream",
    title="a streamed tool call equals a whole one",
    sends="the same request with a tool, whole and streamed, temperature 0 (up to 3 cities)",
    expected=(
        "each delta with an index, one id, name and arguments put together equal to the whole "
        "call, finish_reason `tool_calls`"
    ),
    meaning="Tool calls break for clients that stream, which most do.",
)
def tool_call_stream(probe: Probe) -> str:
    """Deltas add up to the call."""

    def attempt(city: str) -> str:
        wishes: dict[str, Any] = {
            "tools": [WEATHER],
            "thinking": probe.off,
            "max_tokens": CALL_TOKENS,
        }
        question = f"What is the weather in {city}?"
        both = [probe.chat(question, stream=s, **wishes) for s in (False, True)]
        whole, streamed = (calls_of(probe, r, [WEATHER]) for r in both)
        if whole is None or streamed is None:
            lacking = [n for n, c in (("whole", whole), ("streamed", streamed)) if c is None]
            raise Weak(f"no call when {' and '.join(lacking)}")
        pairs = [[(c.name, c.arguments) for c in calls] for calls in (whole, streamed)]
        if pairs[0] != pairs[1]:
            raise Weak(f"whole {described(whole)}, streamed {described(streamed)}")
        return f"both {described(whole)}"

    return first_success(attempt, CITIES, f"never equal in {len(CITIES)} tries")


@check(
    "tool-parallel",
    title="two tools are called in one turn",
    sends='"What is the weather in Paris and in Rome?" (up to 3 pairs), whole and streamed',
    expected="two calls with different ids and both cities",
    meaning="All but the first of several calls are dropped.",
)
def tool_parallel(probe: Probe) -> str:
    """Calls are not lost; a model that makes one at a time is not held against the deployment."""
    pairs = (("Paris", "Rome"), ("Berlin", "Madrid"), ("Tokyo", "Oslo"))
    single = False
    for number, (a, b) in enumerate(pairs):
        streamed = number == 0
        both = [
            probe.chat(
                f"What is the weather in {a} and in {b}?",
                stream=s,
                tools=[WEATHER],
                thinking=probe.off,
                max_tokens=CALL_TOKENS,
                parallel_tool_calls=True,
            )
            for s in ((False, True) if streamed else (False,))
        ]
        found = [calls_of(probe, r, [WEATHER]) for r in both]
        for reply, calls in zip(both, found, strict=True):
            if calls is not None and len(calls) == 1:
                _accounted(probe, reply)
                single = True
        wanted = {a.casefold(), b.casefold()}
        right = [c is not None and set().union(*map(_cities, c)) >= wanted for c in found]
        if all(right):
            return f"{described(found[0] or ())}"
        if any(right):
            raise Broken("two calls when whole, not when streamed, or the other way round")
    if single:
        raise Unclear("the model makes one call at a time, so nothing is seen of two")
    raise Broken(f"no right pair of calls in {len(pairs)} tries")


@check(
    "tool-zero-args",
    title="a tool without arguments is called",
    sends='"What time is it?" with get_time, which takes nothing (up to 3 wordings)',
    expected="a call whose arguments are the text of an empty object",
    meaning="Calls without arguments are dropped or come as invalid JSON.",
)
def tool_zero_args(probe: Probe) -> str:
    """Empty is `{}`, not nothing."""
    return _calling(
        probe,
        ["What time is it?", "What time is it now?", "Tell me the time."],
        [TIME],
        lambda _, calls: calls[0].parsed() == {},
        "no call in 3 tries",
    )


@check(
    "tool-nested-json",
    title="nested arguments arrive whole",
    sends="a request that needs an object and a list within the arguments (up to 3 wordings)",
    expected="arguments that parse and satisfy the tool's schema",
    meaning="Tools with structured arguments get broken input.",
)
def tool_nested_json(probe: Probe) -> str:
    """Braces within braces."""
    return _calling(
        probe,
        [
            f"Create an event with title {t}, city {c}, street {s} and attendees {g}, {h}."
            for t, c, s, g, h in (
                ("Lunch", "Paris", "Rivoli", "Anna", "Ben"),
                ("Demo", "Rome", "Cavour", "Carlos", "Nora"),
                ("Party", "Berlin", "Linden", "Emma", "Felix"),
            )
        ],
        [EVENT],
        lambda _, calls: len(calls) == 1,
        "no call that satisfies the schema in 3 tries",
        max_tokens=256,
    )


@check(
    "tool-result-turn",
    title="a tool's result is used",
    sends="a question, its call and the result, for get_weather (up to 3 results)",
    expected="an answer with the number of the result, no tags",
    meaning="The model does not see what its tools return.",
)
def tool_result_turn(probe: Probe) -> str:
    """The turn after the call."""
    results = (("Paris", "17"), ("Rome", "26"), ("Berlin", "9"))

    def attempt(case: tuple[str, str]) -> str:
        city, degrees = case
        turns = [
            user(f"What is the weather in {city}?"),
            assistant("", call("get_weather", city=city)),
            result(f"{degrees} °C"),
        ]
        reply = probe.chat(turns, tools=[WEATHER], thinking=probe.off, max_tokens=96)
        no_leak(reply)
        if degrees not in reply.content:
            raise Weak(shown(reply.content, 60))
        return shown(reply.content, 80)

    return first_success(attempt, results, f"the result is in none of {len(results)} answers")


@check(
    "tool-choice-none",
    title="`tool_choice: none` is obeyed",
    sends='"What is the weather in Paris?" with a tool and `tool_choice: "none"`',
    expected="text, no call, no tags",
    meaning="A client that forbids tools gets calls or raw tags.",
)
def tool_choice_none(probe: Probe) -> str:
    """No means no."""
    reply = probe.chat(
        "What is the weather in Paris?",
        tools=[WEATHER],
        tool_choice="none",
        thinking=probe.off,
        max_tokens=96,
    )
    if reply.tool_calls:
        raise Broken(f"it calls {described(reply.tool_calls)}")
    no_leak(reply)
    if not reply.content.strip():
        raise Broken("no call, but no text either")
    return shown(reply.content, 80)


@check(
    "tool-several",
    title="the right one of several tools is called",
    sends='"What is 12 + 30? Use the tool." with add, get_weather and get_time (up to 3 sums)',
    expected="one call of add with both numbers as integers",
    meaning="Tool lists do not reach the model as it was trained on them.",
)
def tool_several(probe: Probe) -> str:
    """Numbers stay numbers, names stay apart."""
    sums = ((12, 30), (5, 8), (21, 14))
    return _calling(
        probe,
        [f"Add {a} and {b}." for a, b in sums],
        [WEATHER, ADD, TIME],
        lambda n, calls: calls[0].name == "add" and calls[0].parsed() == _sum(sums[n]),
        "no right call in 3 tries",
    )


def _sum(pair: tuple[int, int]) -> dict[str, int]:
    return {"a": pair[0], "b": pair[1]}
