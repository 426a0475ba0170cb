"""Sampling: the knobs of a request are obeyed, and what is promised by default is applied."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from qwharf.types import Mode, Sampling
from qwharf.verify.contract import Broken, check
from qwharf.verify.probe import Probe
from qwharf.verify.replies import Reply, shown

OPEN = ("Tell me a story about a cat and a dog.", "Write a poem about the sea.", "Who are you?")
"""Questions with many possible answers, so that sampling shows."""
TOKENS = 24


def _say(probe: Probe, question: str, seed: int, **fields: Any) -> str:
    wishes = {"thinking": probe.off, "max_tokens": TOKENS, "room": False} | fields
    return probe.chat(question, seed=seed, **wishes).text


def _steady(probe: Probe, name: str, **fields: Any) -> str:
    """Two different seeds must give the same text.

    The first reply is thrown away: with a prompt not yet cached an engine may batch differently,
    and rounding may tip a near tie. One question of two may still do so.
    """
    pairs = []
    for question in OPEN[:2]:
        _say(probe, question, 1, **fields)
        pair = [_say(probe, question, seed, **fields) for seed in (2, 3)]
        if not pair[0]:
            raise Broken(f"{name}: an empty reply")
        if pair[0] == pair[1]:
            return f"{name}: {shown(pair[0], 50)} twice"
        pairs.append(pair)
    raise Broken(f"{name}: {shown(pairs[0][0], 60)}, then {shown(pairs[0][1], 60)}")


@check(
    "greedy-repeatable",
    title="temperature 0 gives the same answer twice",
    sends="open questions at temperature 0 with different seeds",
    expected="the same text",
    meaning="Results cannot be reproduced, and tests built on them flicker.",
)
def greedy_repeatable(probe: Probe) -> str:
    """Temperature 0 is greedy."""
    return _steady(probe, "temperature 0", temperature=0)


@check(
    "sampling-applied",
    title="top_k, top_p and min_p are obeyed",
    sends="open questions at temperature 1.5 with top_k 1, with top_p near 0, with min_p 1",
    expected="the same text for different seeds each time, since only one token is left to choose",
    meaning="Qwen3's recommended sampling cannot be set: quality drops and answers loop.",
)
def sampling_applied(probe: Probe) -> str:
    """Each knob by itself makes a hot sampler greedy."""
    knobs: tuple[tuple[str, Any], ...] = (("top_k", 1), ("top_p", 1e-6), ("min_p", 1.0))
    for name, value in knobs:
        _steady(probe, f"{name} {value}", temperature=1.5, **{name: value})
    return "each of the three narrows the choice to one"


@check(
    "seed-obeyed",
    title="seeds are obeyed",
    sends="an open question at temperature 1.5: the same seed twice, then other seeds",
    expected="the same seed the same text, other seeds another text",
    meaning="Sampled results cannot be reproduced, or temperature has no effect.",
)
def seed_obeyed(probe: Probe) -> str:
    """Same seed, same text; other seed, other text."""
    hot: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    _say(probe, OPEN[0], 11, **hot)
    first = second = ""
    for seed in (11, 12):
        first, second = (_say(probe, OPEN[0], seed, **hot) for _ in range(2))
        if first == second:
            break
    else:
        raise Broken(f"seed 12 gives {shown(first, 60)}, then {shown(second, 60)}")
    others = {_say(probe, OPEN[0], seed, **hot) for seed in (21, 22, 23)} | {first}
    if len(others) == 1:
        raise Broken(f"four seeds at temperature 1.5 all give {shown(first)}")
    return f"{len(others)} texts from 4 seeds, the same seed repeats"


@check(
    "sampling-defaults",
    title="a request that does not say is sampled as Qwen3 wants it",
    sends="a request without sampling fields per mode, then reads back what the engine applied",
    expected="temperature, top_p, top_k, min_p and presence_penalty of the mode's preset, and no "
    "repeat penalty",
    meaning="The engine's own defaults are used: worse answers, endless repetition.",
    needs=("sampling",),
)
def sampling_defaults(probe: Probe) -> str:
    """What the engine applies when the client is silent."""
    told = []
    for mode, preset in probe.target.sampling.items():
        probe.chat("Hi", thinking=_switch(probe, mode), temperature=None, max_tokens=2, room=False)
        wrong = list(_differences(preset, probe.applied()))
        if wrong:
            raise Broken(f"{mode}: {', '.join(wrong)}")
        told.append(f"{mode} {preset.temperature}/{preset.top_p}/{preset.top_k}")
    return "; ".join(told)


def _switch(probe: Probe, mode: Mode) -> bool | None:
    return (mode == "thinking") if probe.target.thinking == "hybrid" else None


def _differences(preset: Sampling, applied: dict[str, Any]) -> Iterable[str]:
    names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty")
    wanted = {n: float(getattr(preset, n)) for n in names} | {"repeat_penalty": 1.0}
    for name, value in wanted.items():
        found = applied.get(name)
        number = isinstance(found, (int, float)) and not isinstance(found, bool)
        # Engines keep single precision.
        if not number or not math.isclose(float(found or 0), value, rel_tol=1e-5, abs_tol=1e-6):
            yield f"{name} is {found}, not {value:g}"


@check(
    "logprobs",
    title="log probabilities are right",
    sends="a question at temperature 0 with `logprobs` and `top_logprobs: 3`",
    expected=(
        "one entry per token, each probability in (0, 1], the chosen token the most probable, "
        "the tokens together the text"
    ),
    meaning="Evaluation and confidence scores built on log probabilities are wrong.",
)
def logprobs(probe: Probe) -> str:
    """Probabilities that could be ones."""
    reply = probe.chat(
        "What is the capital of France?",
        thinking=probe.off,
        max_tokens=12,
        room=False,
        logprobs=True,
        top_logprobs=3,
    )
    entries = reply.logprobs
    if not entries:
        raise Broken("no `logprobs.content` in the answer")
    for entry in entries:
        value, top = entry.get("logprob"), entry.get("top_logprobs") or []
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value > 1e-4:
            raise Broken(f"a log probability of {value} for {entry.get('token')!r}")
        best = max((t["logprob"] for t in top), default=value)
        if value < best - 1e-3:
            raise Broken(
                f"at temperature 0 {entry.get('token')!r} ({value:.3f}) was chosen although "
                f"another had {best:.3f}"
            )
    if reply.usage and len(entries) > reply.usage.completion_tokens:
        raise Broken(f"{len(entries)} entries for {reply.usage.completion_tokens} tokens")
    spelt = "".join(str(e.get("token")) for e in entries)
    if reply.content.strip() and reply.content.strip() not in spelt:
        raise Broken(f"the tokens spell {shown(spelt)}, the text is {shown(reply.content)}")
    return f"{len(entries)} entries, first token {math.exp(entries[0]['logprob']):.0%}"


@check(
    "max-tokens",
    title="the limit on output is obeyed",
    sends="a long task with `max_tokens: 8`, then with `max_completion_tokens: 8`",
    expected="8 tokens at most, finish_reason `length`",
    meaning="Costs and waiting times cannot be bounded.",
)
def max_tokens(probe: Probe) -> str:
    """Both names of the limit."""
    question = "Count from 1 to 30."
    asked: dict[str, Any] = {"thinking": probe.off, "room": False}
    plain = probe.chat(question, max_tokens=8, **asked)
    body = probe.body(question, max_tokens=8, **asked)
    body["max_completion_tokens"] = body.pop("max_tokens")
    renamed = probe.send(body)
    for name, reply in (("max_tokens", plain), ("max_completion_tokens", renamed)):
        _within(name, reply, 8)
    return "8 tokens, `length`, by both names"


def _within(name: str, reply: Reply, limit: int) -> None:
    if reply.usage and reply.usage.completion_tokens > limit:
        raise Broken(f"{name}: {reply.usage.completion_tokens} tokens, not {limit}")
    if reply.finish_reason != "length":
        raise Broken(f"{name}: finish_reason `{reply.finish_reason}` after {shown(reply.text, 60)}")
