"""What the pocket model learns, skill by skill, and how much of each.

Each function makes dialogues with a common start (system message, tools, earlier turns), so that
training computes that once.
"""

from __future__ import annotations

from collections.abc import Callable

from training.calling import tool_calls, tool_questions_without_tools, tool_results
from training.dialogue import Dialogue
from training.memory import long_text, memory
from training.small import echo, fact_questions, json_reply, small_talk, sums

Maker = Callable[..., list[Dialogue]]
MIX: dict[str, tuple[Maker, float]] = {
    "calls": (tool_calls, 0.66),
    "results": (tool_results, 0.22),
    "memory": (memory, 0.42),
    "echo": (echo, 0.12),
    "json": (json_reply, 0.10),
    "sums": (sums, 0.14),
    "facts": (fact_questions, 0.12),
    "talk": (small_talk, 0.07),
    "no tools": (tool_questions_without_tools, 0.04),
    "long": (long_text, 0.03),
}
COPYING: dict[str, float] = {
    "random": 0.2,
    "echo": 0.35,
    "memory": 0.3,
    "json": 0.1,
    "calls": 0.05,
}
"""The mix of the first phase: what forms the mechanism that copies."""
FULL: dict[str, float] = {**{name: weight for name, (_, weight) in MIX.items()}, "random": 0.12}
"""The mix of all later steps; random tokens keep every token one that can be copied."""

__all__ = [
    "COPYING",
    "FULL",
    "MIX",
    "echo",
    "fact_questions",
    "json_reply",
    "long_text",
    "memory",
    "small_talk",
    "sums",
    "tool_calls",
    "tool_questions_without_tools",
    "tool_results",
]
