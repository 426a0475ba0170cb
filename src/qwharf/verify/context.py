"""Context: what was promised is there, and what is too long is refused, not cut."""

from __future__ import annotations

import time
from dataclasses import dataclass

from qwharf.verify.contract import Broken, Unclear, check
from qwharf.verify.line import Refused
from qwharf.verify.probe import Probe
from qwharf.verify.replies import shown

RESERVE_TOKENS = 96
TEMPLATE_TOKENS = 16
"""More than this is not lost between two templates."""
BUDGET_SECONDS = 40.0
"""Longer than this a prompt is not processed just to see that it can be."""
WATCH_SECONDS = 6.0
BATCH_TOKENS = 2048
"""What llama.cpp computes of a prompt before it looks at anything else; others take fewer."""
FILLER = "The quick brown fox jumps over the lazy dog. "
QUESTION = "\nHow many words does this text have?"
NAMES_IT = ("context", "too long", "too many tokens", "exceed", "maximum", "n_ctx")


@dataclass(frozen=True, slots=True)
class Long:
    """A prompt of known length."""

    text: str
    tokens: int


def long_prompt(probe: Probe, tokens: int) -> Long:
    """A user message whose whole prompt has about ``tokens`` tokens, and how many exactly.

    Counted with the reference, or, without one, from the ``usage`` of two short requests.
    """
    if probe.target.reference is None:
        base, unit = _measured(probe)
        repeats = max(1, int((tokens - base) / unit))
        return Long(FILLER * repeats + QUESTION, round(base + unit * repeats))

    def counted(repeats: int) -> Long:
        text = FILLER * repeats + QUESTION
        message = {"role": "user", "content": text}
        return Long(text, probe.expected_tokens([message], thinking=probe.off))

    small, more = counted(8), counted(24)
    unit = (more.tokens - small.tokens) / 16
    repeats = max(1, int((tokens - small.tokens) / unit) + 8)
    made = counted(repeats)
    while made.tokens > tokens and repeats > 1:
        repeats -= 1
        made = counted(repeats)
    return made


def _measured(probe: Probe) -> tuple[float, float]:
    counts = []
    for repeats in (8, 24):
        usage = _ask(probe, Long(FILLER * repeats + QUESTION, 0))
        if usage is None:
            raise Unclear("the endpoint reports no `usage`, and there is no reference to count by")
        counts.append(usage)
    unit = (counts[1] - counts[0]) / 16
    if unit <= 0:
        raise Broken(f"a prompt three times as long counts {counts[1]} tokens after {counts[0]}")
    return counts[0] - 8 * unit, unit


def _ask(probe: Probe, prompt: Long) -> int | None:
    reply = probe.chat(
        prompt.text,
        thinking=probe.off,
        max_tokens=2,
        room=False,
        prompt_tokens=prompt.tokens,
    )
    return reply.usage.prompt_tokens if reply.usage else None


def _promised(probe: Probe) -> int:
    promised = probe.target.context_tokens
    assert promised is not None  # noqa: S101 - the check declares the need
    return promised


@check(
    "context-honoured",
    title="the promised context is there",
    sends=(
        "a prompt that all but fills the promised context; where that would take long on this "
        "machine, a shorter one in full, and the long one until it is plain that it is not refused"
    ),
    expected="accepted, and `usage.prompt_tokens` equal to our own count: nothing cut away",
    meaning="Long conversations and documents are cut in silence, or refused below the promise.",
    needs=("context",),
)
def context_honoured(probe: Probe) -> str:
    """Counts show a cut that no answer would."""
    full = long_prompt(probe, _promised(probe) - RESERVE_TOKENS)
    warm = long_prompt(probe, min(512, full.tokens))
    start = time.monotonic()
    _complete(probe, warm)
    speed = warm.tokens / max(time.monotonic() - start, 1e-3)
    if full.tokens / speed <= BUDGET_SECONDS:
        _complete(probe, full)
        return f"{full.tokens:,} of {_promised(probe):,} tokens processed, none cut"
    part = long_prompt(probe, int(speed * BUDGET_SECONDS / 4))
    _complete(probe, part)
    _accepted(probe, full)
    return (
        f"{part.tokens:,} tokens processed, none cut; {full.tokens:,} accepted, not processed to "
        f"the end ({full.tokens / speed:,.0f} s at {speed:,.0f} tokens/s)"
    )


def _complete(probe: Probe, prompt: Long) -> None:
    try:
        counted = _ask(probe, prompt)
    except Refused as e:
        raise Broken(f"{prompt.tokens:,} tokens, within the promise, are refused: {e}") from e
    if counted is None:
        raise Broken("no `usage` in the answer")
    # Without a reference our own count is an estimate from two short prompts.
    slack = 0 if probe.target.reference is not None else max(4, prompt.tokens // 100)
    if abs(counted - prompt.tokens) > slack:
        raise Broken(
            f"{prompt.tokens:,} tokens were sent, {counted:,} were processed: "
            f"{_why(prompt, counted)}"
        )


def _why(prompt: Long, counted: int) -> str:
    if abs(counted - prompt.tokens) <= TEMPLATE_TOKENS:
        return "the template is another one"
    return "the prompt was cut" if counted < prompt.tokens else "something was added"


def _accepted(probe: Probe, prompt: Long) -> None:
    try:
        probe.watch(prompt.text, WATCH_SECONDS, thinking=probe.off, max_tokens=1, room=False)
    except Refused as e:
        raise Broken(f"{prompt.tokens:,} tokens, within the promise, are refused: {e}") from e
    # An engine notices that we left only between two batches: wait until it is free again.
    probe.chat("Hello!", thinking=probe.off, max_tokens=1, room=False, prompt_tokens=BATCH_TOKENS)


@check(
    "context-refused-beyond",
    title="what is longer than the context is refused, not cut",
    sends="a prompt a quarter longer than the promised context",
    expected="a 4xx error that names the context, before any processing",
    meaning="The beginning of a conversation vanishes in silence, system message included.",
    needs=("context",),
)
def context_refused_beyond(probe: Probe) -> str:
    """A clear no is better than a quiet cut."""
    promised = _promised(probe)
    prompt = long_prompt(probe, promised + max(promised // 4, 512))
    try:
        usage = probe.watch(
            prompt.text, 4 * WATCH_SECONDS, thinking=probe.off, max_tokens=1, room=False
        )
    except Refused as e:
        status = e.answer.status
        message = e.answer.error_message()
        if not 400 <= status < 500:
            raise Broken(f"HTTP {status}: {shown(message)}") from e
        if not any(word in message.casefold() for word in NAMES_IT):
            raise Broken(f"HTTP {status} that does not name the context: {shown(message)}") from e
        return f"{prompt.tokens:,} tokens: HTTP {status}, {shown(message)}"
    if usage is None:
        raise Broken(f"{prompt.tokens:,} tokens were not refused within {4 * WATCH_SECONDS:.0f} s")
    cut = usage < prompt.tokens
    raise Broken(
        f"{prompt.tokens:,} tokens were sent and {usage:,} processed: "
        + ("the prompt was cut" if cut else f"the context is not the promised {promised:,}")
    )
