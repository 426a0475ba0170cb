"""What a rendering may cost: steps, counted before the work is done.

Every turn of a loop, every call and comparison, every item and every 64 characters made or walked
over cost a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MappingView, Set
from contextlib import contextmanager
from contextvars import ContextVar

from jinja2 import TemplateError
from jinja2.utils import Namespace

MAX_STEPS = 1_000_000
"""A conversation of four thousand messages and seven million characters takes a third."""

_left: ContextVar[list[int]] = ContextVar("steps_left")


class TooMuchWork(TemplateError):
    """A template loops or grows beyond reason."""


@contextmanager
def budget() -> Iterator[None]:
    """What is rendered inside shares :data:`MAX_STEPS` steps."""
    token = _left.set([MAX_STEPS])
    try:
        yield
    finally:
        _left.reset(token)


def steps_left() -> int:
    """How many steps may still be taken."""
    return max(0, _left.get()[0])


def spend(characters: int = 0, items: int = 0) -> None:
    """Take one step, one for each item, and one for each 64 characters."""
    left = _left.get()
    left[0] -= 1 + max(0, items) + max(0, characters) // 64
    if left[0] < 0:
        raise TooMuchWork("it loops too often or makes too much text")


def weigh(value: object) -> int:
    """Pay for looking at all of ``value``, and tell about how many characters it has as text.

    A list may hold the same list many times, and that one another: a few lines of template make a
    structure whose text would fill any memory, and whose comparison would never end.
    """
    stack = [value]
    characters = 0
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes):
            spend(len(item))
            characters += len(item) + 4
        elif isinstance(item, Mapping):
            spend(items=2 * len(item))
            stack += item.keys()
            stack += item.values()
        elif isinstance(item, list | tuple | Set | MappingView):
            spend(items=len(item))
            stack += item  # type: ignore[arg-type]
        elif isinstance(item, Namespace):  # shows what it holds
            stack.append(object.__getattribute__(item, "_Namespace__attrs"))
            spend()
        else:
            characters += 32
    return characters


def compared(value: object) -> None:
    """Pay for one side of a comparison, or for a key: it is looked at as a whole."""
    if isinstance(value, str):
        spend(len(value))
    elif isinstance(value, list | tuple | Mapping | Set | MappingView):
        weigh(value)
    else:
        spend()


def searched(value: object) -> None:
    """Pay for what ``in`` looks through."""
    if isinstance(value, Mapping | Set):
        spend()
    else:
        compared(value)
