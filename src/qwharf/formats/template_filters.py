"""Filters and functions of chat templates that pay for what they do.

They take the place of Jinja's, or are put into a template's syntax tree by
:mod:`qwharf.formats.sandbox`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sized
from typing import Any

from jinja2 import Environment, TemplateError, nodes, pass_context
from jinja2.runtime import Context

from qwharf.formats.budget import TooMuchWork, compared, searched, spend, steps_left, weigh

MAX_BITS = 1024
"""Of whole numbers."""


@pass_context
def pass_step(_context: Context, value: Any, characters: int = 0) -> Any:
    """One step, and ``characters`` of text that follow."""
    spend(characters)
    return value


@pass_context
def concat(_context: Context, values: list[Any]) -> str:
    """What ``~`` makes."""
    weigh(values)
    return "".join(map(str, values))


@pass_context
def pass_compared(_context: Context, value: Any) -> Any:
    """See :func:`~qwharf.formats.budget.compared`."""
    compared(value)
    return value


@pass_context
def pass_searched(_context: Context, value: Any) -> Any:
    """See :func:`~qwharf.formats.budget.searched`."""
    searched(value)
    return value


@pass_context
def pass_sliced(_context: Context, value: Any) -> Any:
    """A slice costs what was copied."""
    pay_for(value)
    return value


@pass_context
def output(_context: Context, value: Any) -> Any:
    """Sees each value before it is put out."""
    weigh(value)
    return value if isinstance(value, str) else str(value)


def pay_for(value: object) -> None:
    """A look at, or a copy of, a text or of the outermost items."""
    if isinstance(value, str | bytes):
        spend(len(value))
    else:
        spend(items=len(value) if isinstance(value, Sized) else 0)


def nothing(_value: object) -> None:
    """The price of tests that only look at a type."""


def bounded_range(*arguments: int) -> range:
    """``range``, at a step an item."""
    made = range(*arguments)
    spend(items=len(made))
    return made


def join(separator: str, values: Any) -> str:
    """``str.join``, of anything."""
    parts = list(values)
    weigh(parts)
    spend(len(separator) * len(parts))
    return separator.join(map(str, parts))


def replace(text: str, old: str, new: str, count: int = -1) -> str:
    """``str.replace``."""
    found = text.count(old) if count < 0 else min(count, len(text) + 1)
    spend(len(text) + found * len(new))
    return text.replace(old, new, count)


def split(method: Callable[..., list[str]], sep: str | None = None, maxsplit: int = -1) -> Any:
    """``str.split`` or ``str.rsplit``, into no more parts than the budget has steps."""
    most = steps_left()
    parts = method(sep, most if maxsplit < 0 else min(maxsplit, most))
    spend(items=len(parts))
    return parts


@pass_context
def join_items(context: Context, value: Any, d: str = "", attribute: Any = None) -> str:
    """The filter ``join``."""
    if attribute is not None:
        value = [context.environment.getitem(v, attribute) for v in value]
    return join(str(d), value)


@pass_context
def replace_text(_context: Context, s: Any, old: Any, new: Any, count: Any = None) -> str:
    """The filter ``replace``."""
    weigh((s, old, new))
    return replace(str(s), str(old), str(new), -1 if count is None else int(count))


@pass_context
def as_list(_context: Context, value: Any) -> list[Any]:
    """The filter ``list``."""
    spend(items=len(value) if isinstance(value, Sized) else 0)
    made = list(value)
    spend(items=len(made))
    return made


@pass_context
def as_int(_context: Context, value: Any, default: int = 0, base: int = 10) -> int:
    """The filter ``int``."""
    weigh(value)
    try:
        made = int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        try:
            made = int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default
    return short(made)


def short(number: int) -> int:
    """``number``, unless it is so long that counting with it takes time."""
    if number.bit_length() > MAX_BITS:
        raise TooMuchWork("a number too long")
    return number


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' templates write it: not escaped for HTML, not sorted."""
    if indent is not None and not 0 <= indent <= 16:
        raise TooMuchWork(f"an indent of {indent}")
    weigh(value)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    pieces = []
    for piece in encoder.iterencode(value):
        spend(len(piece))
        pieces.append(piece)
    return "".join(pieces)


@pass_context
def json_text(_context: Context, value: Any, *arguments: Any, **named: Any) -> str:
    """The filter ``tojson``."""
    return to_json(value, *arguments, **named)


def counted(function: Callable[..., Any], pay: Callable[[object], Any]) -> Callable[..., Any]:
    """A filter or test of Jinja's that costs by its arguments."""

    @functools.wraps(function)  # carries over which arguments Jinja passes of its own
    def counted(*arguments: Any, **named: Any) -> Any:
        spend()
        for value in (*arguments, *named.values()):
            if not isinstance(value, Context | nodes.EvalContext | Environment):
                pay(value)
        return function(*arguments, **named)

    return counted


def raise_exception(message: object) -> None:
    """``raise_exception`` of the templates."""
    weigh(message)
    raise TemplateError(str(message))
