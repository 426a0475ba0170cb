"""How far an engine is, told by marks in its log."""

from __future__ import annotations

from collections.abc import Sequence

Phases = Sequence[tuple[str, str]]
"""A piece of a line, and what begins with it in a few words; the first that is found counts."""


def begun(phases: Phases, log_line: str) -> str | None:
    """What begins with this line; ``None`` for nearly all lines."""
    return next((name for mark, name in phases if mark in log_line), None)
