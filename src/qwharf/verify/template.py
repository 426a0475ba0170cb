"""The chat template: does the engine build the prompt that the checkpoint's template builds?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwharf.verify.contract import Broken, check
from qwharf.verify.conversations import (
    TIME,
    WEATHER,
    Conversation,
    assistant,
    call,
    conversations,
    random_conversations,
    result,
    user,
)
from qwharf.verify.probe import Probe
from qwharf.verify.replies import shown
from qwharf.verify.target import Message

RANDOM_CONVERSATIONS = 40
SEED = 3


@check(
    "template-token-exact",
    title="the prompt is the checkpoint's own, token for token",
    sends=(
        "some 25 written and 40 random conversations (system, turns, tools, parallel calls, "
        "results, reasoning, thinking on and off) to the probe routes; without these, the written "
        "ones as chat requests of one token"
    ),
    expected="text and token ids equal to our rendering; without probe routes, token counts equal",
    meaning=(
        "The model is shown something it was not trained on: answers, thinking and tool calls get "
        "worse in ways that are hard to trace."
    ),
    needs=("reference",),
)
def template_token_exact(probe: Probe) -> str:
    """Exact where the engine shows its prompt, else by exact counts."""
    kind = probe.target.thinking
    written = conversations(kind)
    if not probe.target.probe_url:
        counted = [c for c in written if _count_equal(probe, c)]
        return f"{len(counted)} token counts equal (the endpoint does not show its prompt)"
    drawn = tuple(random_conversations(kind, RANDOM_CONVERSATIONS, SEED))
    equal = _equal if probe.target.probe == "llama.cpp" else _tokens_equal
    tokens = sum(equal(probe, c) for c in (*written, *drawn))
    return f"{len(written) + len(drawn)} conversations, {tokens:,} tokens, all equal"


def _equal(probe: Probe, conversation: Conversation) -> int:
    """Compare text, then ids; the number of tokens."""
    variables = _variables(conversation)
    expected = probe.reference.render(conversation.messages, conversation.tools, **variables)
    body: dict[str, Any] = {"messages": list(conversation.messages)}
    if conversation.tools:
        body["tools"] = list(conversation.tools)
    if variables:
        body["chat_template_kwargs"] = variables
    prompt = probe.ask_probe("/apply-template", body).get("prompt")
    if prompt != expected:
        raise Broken(f"{conversation.name}: {difference(expected, str(prompt))}")
    wanted = probe.reference.tokenizer.encode(expected)
    # add_special: what the engine adds at the front of a real prompt must show here as well.
    asked = {"content": prompt, "add_special": True, "parse_special": True}
    ids = probe.ask_probe("/tokenize", asked).get("tokens")
    if ids != wanted:
        raise Broken(f"{conversation.name}: same text, but token {_first(wanted, ids or [])}")
    return len(wanted)


def _tokens_equal(probe: Probe, conversation: Conversation) -> int:
    """Compare ids, where the engine shows those of a conversation only; the number of tokens."""
    variables = _variables(conversation)
    wanted = probe.reference.tokens(conversation.messages, conversation.tools, **variables)
    body: dict[str, Any] = {"messages": [_under_both_names(m) for m in conversation.messages]}
    if conversation.tools:
        body["tools"] = list(conversation.tools)
    if variables:
        body["chat_template_kwargs"] = variables
    ids = probe.ask_probe("/tokenize", body).get("tokens")
    if ids != wanted:
        raise Broken(f"{conversation.name}: token {_first(wanted, ids or [])}")
    return len(wanted)


def _under_both_names(message: Message) -> Message:
    """With its thoughts as ``reasoning`` too: that is what vLLM makes of ``reasoning_content`` in a
    chat, but not here (seen in 0.32).
    """
    thoughts = message.get("reasoning_content")
    return message if thoughts is None else {**message, "reasoning": thoughts}


def _count_equal(probe: Probe, conversation: Conversation) -> bool:
    wanted = probe.expected_tokens(conversation.messages, conversation.tools, conversation.thinking)
    reply = probe.chat(
        conversation.messages,
        tools=conversation.tools or None,
        thinking=conversation.thinking,
        max_tokens=1,
        room=False,
        prompt_tokens=wanted,
    )
    if reply.usage is None:
        raise Broken("no `usage` in the answer")
    if reply.usage.prompt_tokens != wanted:
        raise Broken(
            f"{conversation.name}: {reply.usage.prompt_tokens} prompt tokens where the "
            f"checkpoint's template makes {wanted}"
        )
    return True


@check(
    "content-forms",
    title="text parts and null content mean what they say",
    sends=(
        "the same text as a string and as one and two parts; a tool call beside `content` null "
        "and beside empty content"
    ),
    expected="equal prompt token counts (two parts: but for a line break)",
    meaning=(
        "Messages from common clients reach the model empty or not at all (Qwen3's template "
        "renders a list of parts as nothing)."
    ),
)
def content_forms(probe: Probe) -> str:
    """Parts are flattened and null is empty before templating."""
    text = "Name three colours of the rainbow."
    parts = [{"type": "text", "text": text}]
    empty = assistant("", call("get_weather", city="Rome"))
    turn = (user("Weather in Rome?"), result("21"))
    pairs: dict[str, tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]] = {
        "a list with one text part": ([user(text)], [{"role": "user", "content": parts}]),
        "null content": ((turn[0], empty, turn[1]), (turn[0], {**empty, "content": None}, turn[1])),
    }
    for name, (plain, other) in pairs.items():
        counts = [_prompt_tokens(probe, messages) for messages in (plain, other)]
        if counts[0] != counts[1]:
            raise Broken(f"{name}: {counts[1]} prompt tokens, as plain text {counts[0]}")
    # Whether parts are joined as they are or by a line break is nobody's law; that none is lost is.
    both = _prompt_tokens(probe, [{"role": "user", "content": parts * 2}])
    twice = _prompt_tokens(probe, [user(text * 2)])
    if abs(both - twice) > 2:
        raise Broken(f"two text parts: {both} prompt tokens, as one text {twice}")
    return "the same prompts in every form"


def _prompt_tokens(probe: Probe, messages: Sequence[dict[str, Any]]) -> int:
    reply = probe.chat(
        messages, thinking=probe.off, tools=(WEATHER, TIME), max_tokens=1, room=False
    )
    if reply.usage is None:
        raise Broken("no `usage` in the answer")
    return reply.usage.prompt_tokens


def difference(expected: str, found: str) -> str:
    """Where two texts part, with a little of both."""
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    start = max(0, at - 20)
    return (
        f"at character {at} the engine has {shown(found[start : at + 40])}, "
        f"the checkpoint's template {shown(expected[start : at + 40])}"
    )


def _first(wanted: Sequence[int], found: Sequence[int]) -> str:
    for i, (a, b) in enumerate(zip(wanted, found, strict=False)):
        if a != b:
            return f"{i} is {b}, the checkpoint's tokenizer gives {a}"
    return f"count is {len(found)}, the checkpoint's tokenizer gives {len(wanted)}"


def _variables(conversation: Conversation) -> dict[str, Any]:
    return {} if conversation.thinking is None else {"enable_thinking": conversation.thinking}
