"""Thinking on and off, by the hard switch and the soft ones: put over any dialogue."""

from __future__ import annotations

from dataclasses import replace

from training.dialogue import Dialogue, Message
from training.words import Draw

MODES: dict[str, float] = {
    "default": 0.30,
    "off": 0.37,
    "no_think": 0.13,
    "think": 0.07,
    "both": 0.04,
    "off_think": 0.03,
    "off_no_think": 0.02,
    "no_think_before": 0.04,
}
SWITCHES = {"no_think": "/no_think", "think": "/think"}


def switched(draw: Draw, dialogue: Dialogue, mode: str | None = None) -> Dialogue:
    """``dialogue`` with a switch of ``mode`` (default: drawn) in its messages.

    The last switch in any user or system message wins, and the hard switch wins over all.
    """
    mode = mode or draw.weighted(MODES)
    messages = list(dialogue.messages)
    hard_off = mode.startswith("off")
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    if mode in ("no_think", "think"):
        _add(draw, messages, last, SWITCHES[mode])
    elif mode == "both":
        pair = ["/think", "/no_think"]
        draw.rng.shuffle(pair)
        earlier = [i for i, m in enumerate(messages[:last]) if m["role"] in ("user", "system")]
        if earlier:
            _add(draw, messages, draw.rng.choice(earlier), pair[0])
            _add(draw, messages, last, pair[1])
        else:
            _add(draw, messages, last, " ".join(pair))
    elif mode == "no_think_before":
        earlier = [i for i, m in enumerate(messages[:last]) if m["role"] in ("user", "system")]
        if earlier:
            where = draw.rng.choice(earlier)
            _add(draw, messages, where, "/no_think" if draw.chance(0.8) else "/think")
    elif mode == "off_think":
        _add(draw, messages, last, "/think")
    elif mode == "off_no_think":
        _add(draw, messages, last, "/no_think")
    thinks = not hard_off and wants_thinking(messages)
    if not thinks:
        messages = [_without_reasoning(m) for m in messages]
    return replace(dialogue, messages=tuple(messages), thinking=not hard_off, thinks=thinks)


def wants_thinking(messages: list[Message]) -> bool:
    """What the soft switches say: the last one wins; none means yes."""
    text = "\n".join(m["content"] for m in messages if m["role"] in ("user", "system"))
    return text.rfind("/think") >= text.rfind("/no_think")


def _add(draw: Draw, messages: list[Message], index: int, switch: str) -> None:
    message = dict(messages[index])
    x = draw.rng.random()
    if x < 0.75:
        message["content"] = f"{message['content']} {switch}"
    elif x < 0.9:
        message["content"] = f"{message['content']}\n{switch}"
    else:
        message["content"] = f"{switch} {message['content']}"
    messages[index] = message


def _without_reasoning(message: Message) -> Message:
    return {k: v for k, v in message.items() if k != "reasoning_content"}
