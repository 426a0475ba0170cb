"""Where replies end, and how they are counted."""

from __future__ import annotations

from typing import Any

from qwharf.verify.contract import Broken, Unclear, Weak, check, first_success
from qwharf.verify.conversations import WEATHER, system, user
from qwharf.verify.probe import Probe
from qwharf.verify.replies import STOP_TOKENS, Reply, shown


@check(
    "stop-tokens",
    title="replies end where the model ends them",
    sends="short questions (up to 3)",
    expected="finish_reason `stop` well before the limit, no `<|im_end|>` or its like in the text",
    meaning="Replies run on into invented turns, or show control tokens.",
)
def stop_tokens(probe: Probe) -> str:
    """The end token ends, and is not shown."""

    def attempt(question: str) -> str:
        reply = probe.chat(question, thinking=probe.off, max_tokens=192)
        for token in STOP_TOKENS:
            if token in reply.text:
                raise Broken(f"`{token}` in the text: {shown(reply.text)}")
        if reply.finish_reason == "length":
            raise Weak(shown(reply.text[-60:]))
        if reply.finish_reason != "stop":
            raise Broken(f"finish_reason is `{reply.finish_reason}`")
        return f"`stop` after {shown(reply.content, 60)}"

    return first_success(
        attempt,
        ("What is the capital of France?", "Hello!", "What is 2+2?"),
        "3 short questions, and every reply ran into the limit of 192 tokens",
    )


@check(
    "stop-string",
    title="a stop string stops",
    sends="a question at temperature 0, then again with a piece of its own answer as `stop`",
    expected="the answer up to that piece, without it, finish_reason `stop`, streamed or not",
    meaning="Programs that cut replies at a marker get too much, or half a marker.",
)
def stop_string(probe: Probe) -> str:
    """Independent of what the model says: the stop string is taken from its own words."""
    question = "Count from 1 to 30."
    asked: dict[str, Any] = {"thinking": probe.off, "max_tokens": 40, "room": False}
    full = probe.chat(question, **asked).text
    middle = len(full) // 2
    piece = full[middle : middle + 3]
    if len(piece.strip()) < 1 or len(full) < 8:
        raise Unclear(f"the model says too little to cut: {shown(full)}")
    wanted = full[: full.index(piece)]
    for stream in (False, True):
        reply = probe.chat(question, stream=stream, stop=[piece], **asked)
        how = "streamed" if stream else "whole"
        if piece in reply.text:
            raise Broken(f"{how}: {shown(piece)} is in {shown(reply.text)}")
        if reply.text.strip() != wanted.strip():
            raise Broken(f"{how}: {shown(reply.text)}, not {shown(wanted)}")
        if reply.finish_reason != "stop":
            raise Broken(f"{how}: finish_reason is `{reply.finish_reason}`")
    return f"stopped before {shown(piece)}, both ways"


@check(
    "usage-counts",
    title="tokens are counted right",
    sends="chat requests with and without tools, whole and streamed with `include_usage`",
    expected=(
        "prompt_tokens equal to our rendering (and the same streamed), completion_tokens near "
        "the text's own count, the total their sum"
    ),
    meaning="Budgets, bills and context handling built on `usage` are wrong.",
)
def usage_counts(probe: Probe) -> str:
    """Counts of the real chat route, against the checkpoint's own tokenizer."""
    turns = [system("Be brief."), user("What is the capital of France?")]
    told = []
    for tools in (None, [WEATHER]):
        replies: list[Reply] = [
            probe.chat(turns, stream=s, tools=tools, thinking=probe.off, max_tokens=24, room=False)
            for s in (False, True)
        ]
        for how, reply in zip(("whole", "streamed"), replies, strict=True):
            told.append(_counted(probe, f"{how}{' with tools' if tools else ''}", reply))
            if probe.target.reference is None:
                continue
            wanted = probe.expected_tokens(turns, tools, probe.off)
            if told[-1] != wanted:
                raise Broken(f"{how}: {told[-1]} prompt tokens, our rendering has {wanted}")
        if told[-1] != told[-2]:
            raise Broken(f"{told[-2]} prompt tokens whole, {told[-1]} streamed")
    return f"{told[0]} and {told[-1]} prompt tokens, as they should be"


def _counted(probe: Probe, how: str, reply: Reply) -> int:
    usage = reply.usage
    if usage is None:
        raise Broken(f"{how}: no `usage`")
    if usage.total_tokens != usage.prompt_tokens + usage.completion_tokens:
        raise Broken(f"{how}: {usage} does not add up")
    if not 0 < usage.completion_tokens <= 24:
        raise Broken(f"{how}: {usage.completion_tokens} completion tokens of 24 allowed")
    if probe.target.reference is not None and not reply.tool_calls:
        own = len(probe.reference.tokenizer.encode(reply.text))
        # The end token and think tags are generated but not shown; cut characters are held back.
        if not own - 2 <= usage.completion_tokens <= own + 8:
            raise Broken(f"{how}: {usage.completion_tokens} completion tokens for {own} of text")
    return usage.prompt_tokens
