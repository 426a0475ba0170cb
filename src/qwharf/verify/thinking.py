"""Thinking: on, off, softly switched, and always in its own field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwharf.types import Sampling
from qwharf.verify.contract import (
    ALWAYS,
    HYBRID,
    INSTRUCT,
    THINKS,
    Broken,
    Unclear,
    Weak,
    check,
    first_success,
)
from qwharf.verify.conversations import assistant, system, user
from qwharf.verify.line import Refused
from qwharf.verify.probe import Probe
from qwharf.verify.replies import REASONING_FIELDS, Reply, shown
from qwharf.verify.target import Message

QUESTIONS = ("What is 2+2?", "What is the capital of France?", "What is 3+4?")
ROOM_TOKENS = 1024
THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20)
"""Qwen3's own for thinking; greedy decoding makes it repeat itself."""


def thinking_sampling(probe: Probe, seed: int) -> dict[str, Any]:
    """Body fields for a request that thinks."""
    chosen = probe.target.sampling.get("thinking", THINKING)
    return {
        "temperature": chosen.temperature,
        "top_p": chosen.top_p,
        "top_k": chosen.top_k,
        "seed": seed,
    }


def on(probe: Probe) -> bool | None:
    """The switch for requests that shall think, where there is one."""
    return True if probe.target.thinking == "hybrid" else None


def no_leak(reply: Reply) -> None:
    """Tags belong to the parser, not to the reader.

    Raises:
        Broken: one stands in text meant for people.
    """
    leaked = reply.leaked()
    if leaked:
        raise Broken(leaked)


@check(
    "thinking-on",
    title="thinking comes apart from the answer",
    sends="a simple question with `enable_thinking` true (up to 3 varied ones)",
    expected="reasoning not empty, content not empty, no tags in either",
    meaning="Users see raw thinking in the answer, or the answer is lost in the reasoning field.",
    thinking=THINKS,
)
def thinking_on(probe: Probe) -> str:
    """Reasoning and answer, each in its place."""

    def attempt(number: int) -> str:
        reply = probe.chat(
            QUESTIONS[number],
            thinking=on(probe),
            max_tokens=ROOM_TOKENS,
            **thinking_sampling(probe, number),
        )
        no_leak(reply)
        if not reply.reasoning.strip():
            # One empty thought may be the model's whim; that every one is empty cannot be.
            raise Weak(f"no reasoning, {shown(reply.content, 60)}")
        if not reply.content.strip():
            if reply.finish_reason == "stop":
                raise Broken(
                    f"content is empty although the reply ended; reasoning: "
                    f"{shown(reply.reasoning)}"
                )
            raise Weak(f"still thinking: {shown(reply.reasoning[-60:])}")
        return f"{len(reply.reasoning)} characters of reasoning, then {shown(reply.content, 60)}"

    return first_success(
        attempt,
        range(len(QUESTIONS)),
        f"in {len(QUESTIONS)} tries of {ROOM_TOKENS} tokens never reasoning and then an answer",
    )


@check(
    "thinking-off",
    title="thinking can be switched off",
    sends="a simple question with `chat_template_kwargs: {enable_thinking: false}`",
    expected="no reasoning, no tags, an answer, and a prompt longer by the closed think block",
    meaning="Every answer costs hundreds of hidden tokens that nobody asked for.",
    thinking=HYBRID,
)
def thinking_off(probe: Probe) -> str:
    """The hard switch reaches the template."""
    reply = probe.chat(QUESTIONS[1], thinking=False, max_tokens=96)
    _must_not_think(reply)
    other = probe.chat(QUESTIONS[1], thinking=True, max_tokens=1)
    if reply.usage and other.usage and reply.usage.prompt_tokens <= other.usage.prompt_tokens:
        raise Broken(
            f"the prompt is {reply.usage.prompt_tokens} tokens with thinking off and "
            f"{other.usage.prompt_tokens} with it on: the switch did not reach the template"
        )
    return f"no reasoning, {shown(reply.content, 60)}"


@check(
    "reasoning-effort-none",
    title="`reasoning_effort: none` switches thinking off too",
    sends='a simple question with `reasoning_effort: "none"`',
    expected="no reasoning, no tags, an answer",
    meaning="OpenAI clients, which know only this switch, cannot turn thinking off.",
    thinking=HYBRID,
)
def reasoning_effort_none(probe: Probe) -> str:
    """The switch that OpenAI's own clients have."""
    reply = probe.chat(QUESTIONS[1], max_tokens=96, reasoning_effort="none")
    _must_not_think(reply)
    return f"no reasoning, {shown(reply.content, 60)}"


def _must_not_think(reply: Reply) -> None:
    if reply.reasoning.strip():
        raise Broken(f"it thinks, in `{reply.reasoning_field}`: {shown(reply.reasoning)}")
    no_leak(reply)
    if not reply.content.strip():
        raise Broken("no reasoning, but no content either")


@check(
    "thinking-absent",
    title="an instruct model does not think",
    sends="a simple question",
    expected="all text in content, no reasoning, no tags",
    meaning="A reasoning parser meant for another variant swallows the answers.",
    thinking=INSTRUCT,
)
def thinking_absent(probe: Probe) -> str:
    """Instruct-2507 has no thinking to parse."""
    reply = probe.chat(QUESTIONS[1], max_tokens=96)
    _must_not_think(reply)
    return shown(reply.content, 60)


@check(
    "thinking-stays-on",
    title="a thinking-only model does not pretend to stop thinking",
    sends="a simple question with `enable_thinking` false",
    expected="a clear refusal (4xx that speaks of thinking), or reasoning all the same",
    meaning="Clients believe that they switched thinking off and get broken answers.",
    thinking=ALWAYS,
)
def thinking_stays_on(probe: Probe) -> str:
    """Thinking-2507 has no switch."""
    try:
        opening = probe.opening(QUESTIONS[0], thinking=False)
    except Refused as e:
        if 400 <= e.answer.status < 500 and "think" in e.answer.error_message().lower():
            return f"refused: {shown(e.answer.error_message())}"
        raise
    if opening.kind != "reasoning":
        raise Broken(f"the reply begins with {opening.kind} {shown(opening.text)}")
    return "it thinks all the same"


@check(
    "soft-switches",
    title="/think and /no_think work, and the last one wins",
    sends=(
        "`/no_think` and `/think` in a user message, in the system message, and one after the "
        "other (up to 3 varied questions each), read until the first visible characters"
    ),
    expected="the reply begins with content after /no_think, with reasoning after /think",
    meaning="The switch that Qwen3 was trained on is lost on the way to the model.",
    thinking=HYBRID,
)
def soft_switches(probe: Probe) -> str:
    """Learnt behaviour, so a single miss is the model's; three in a row are not."""
    cases: tuple[tuple[str, bool], ...] = (
        ("/no_think in the question", False),
        ("/think in the question", True),
        ("/no_think in the system message", False),
        ("/think after /no_think", True),
        ("/no_think after /think", False),
    )
    for name, thinks in cases:
        wanted = "reasoning" if thinks else "content"
        openings = []
        for number, question in enumerate(QUESTIONS):
            opening = probe.opening(
                _soft(name, question),
                thinking=True,
                max_tokens=48,
                **thinking_sampling(probe, number),
            )
            if "<think>" in opening.text or "</think>" in opening.text:
                raise Broken(f"{name}: tags in the {opening.kind}: {shown(opening.text)}")
            openings.append(opening.kind)
            if opening.kind == wanted:
                break
        else:
            raise Broken(f"{name}: the reply begins with {', '.join(openings)}, not {wanted}")
    return f"{len(cases)} cases as asked"


def _soft(case: str, question: str) -> Sequence[Message]:
    match case:
        case "/no_think in the question":
            return [user(f"{question} /no_think")]
        case "/think in the question":
            return [user(f"{question} /think")]
        case "/no_think in the system message":
            return [system("You are a helpful assistant. /no_think"), user(question)]
        case "/think after /no_think":
            first, then = "/no_think", "/think"
        case _:
            first, then = "/think", "/no_think"
    return [user(f"Hello! {first}"), assistant("Hello!"), user(f"{question} {then}")]


@check(
    "reasoning-field",
    title="thinking stands in `reasoning_content`, streamed or not",
    sends="a simple question with thinking on, whole and streamed",
    expected="`reasoning_content` in both, as text, and no thinking in content",
    meaning="Clients look for the thinking under one name and find nothing, or find it twice.",
    thinking=THINKS,
)
def reasoning_field(probe: Probe) -> str:
    """One name, the same in both forms."""
    wishes = thinking_sampling(probe, 1)
    for form in (False, True):
        reply = probe.chat(
            QUESTIONS[0], stream=form, thinking=on(probe), max_tokens=64, room=False, **wishes
        )
        how = "streamed" if form else "whole"
        if not reply.reasoning.strip():
            if reply.content.strip().startswith("<think>"):
                raise Broken(f"{how}: the thinking stands in content: {shown(reply.content)}")
            raise Broken(f"{how}: no reasoning; content: {shown(reply.content)}")
        if reply.reasoning_field != REASONING_FIELDS[0]:
            raise Broken(f"{how}: the field is named `{reply.reasoning_field}`")
        no_leak(reply)
    return "`reasoning_content` in both forms"


@check(
    "reasoning-history",
    title="reasoning handed back in a tool loop reaches the prompt",
    sends="a tool loop with and without `reasoning_content` in the assistant's message",
    expected="the prompt grows by the reasoning",
    meaning="In a chain of tool calls the model forgets why it made the first one.",
    thinking=THINKS,
)
def reasoning_history(probe: Probe) -> str:
    """The template keeps thinking within a tool loop; a server must not drop it."""
    from qwharf.verify.conversations import TIME, call, result

    thought = "The user wants the time, so the clock must be asked before anything else is said."
    counts = []
    for reasoning in (None, thought):
        turns = [
            user("What time is it?"),
            assistant("", call("get_time"), reasoning=reasoning),
            result("12:30"),
        ]
        reply = probe.chat(turns, tools=[TIME], thinking=on(probe), max_tokens=1, room=False)
        if reply.usage is None:
            raise Unclear("the endpoint reports no `usage`")
        counts.append(reply.usage.prompt_tokens)
    if counts[1] < counts[0] + 8:
        raise Broken(f"{counts[0]} prompt tokens without, {counts[1]} with the reasoning")
    return f"{counts[0]} prompt tokens without, {counts[1]} with the reasoning"
