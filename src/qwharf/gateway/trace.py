"""What is remembered of the request under way, for its headers and its line in the log."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Trace:
    """One request; nothing of what was said."""

    id: str
    deployment: str = ""
    outcome: str = ""
    """What became of it, where its status does not tell."""


_current: ContextVar[Trace | None] = ContextVar("qwharf_gateway_trace", default=None)


def begin(id: str) -> Trace:
    """Start the record of the request that this task handles."""
    made = Trace(id)
    _current.set(made)
    return made


def current() -> Trace:
    """The record of the request that this task handles; an empty one outside of any."""
    return _current.get() or Trace("")
