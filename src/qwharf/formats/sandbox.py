"""A Jinja environment for templates from strangers: they cannot reach code, nor work for ever.

Jinja's own sandbox keeps a template from attributes and functions that lead to code. What it does
not bound is work: nested loops, texts that double, ``"%0999999999d"``. So each rendering has a
budget of steps: every turn of a loop, every call, and every 64 characters or items made cost one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_STEPS = 2_000_000
MAX_ITEMS = 64 * MAX_STEPS
MAX_BITS = 1 << 16
MAX_WIDTH = 10_000

_STEP, _CONCAT = "step of the budget", "concat within the budget"
"""Names of filters that no template can spell, because of the blanks."""
_LEFT_OUT = (
    "center", "format", "indent", "wordwrap", "xmlattr", "pprint", "slice", "batch", "random",
    "urlize", "truncate", "filesizeformat", "striptags", "groupby", "sum",
)  # fmt: skip
"""Filters that pad or repeat as a template wishes, and that no chat template needs."""
_PADDING = ("center", "ljust", "rjust", "zfill", "expandtabs")
_WIDE = re.compile(r"[0-9]{5,}|%[^a-zA-Z%]*\*|\{[^{}]*\{")
"""Widths of five digits and more, or widths that are arguments."""

_left: ContextVar[list[int]] = ContextVar("steps_left")


class TooMuchWork(TemplateError):
    """A template loops or grows beyond reason."""


@contextmanager
def budget(steps: int = MAX_STEPS) -> Iterator[None]:
    """What is rendered inside shares ``steps`` steps."""
    token = _left.set([steps])
    try:
        yield
    finally:
        _left.reset(token)


def _spend(items: int = 0) -> None:
    """One step, and one for each 64 characters or items."""
    left = _left.get()
    left[0] -= 1 + items // 64
    if left[0] < 0:
        raise TooMuchWork("it loops too often or makes too much text")


def _size(value: object) -> int:
    return len(value) if isinstance(value, Sized) else 0


# ------------------------------------------------------------------- filters and functions


@pass_context
def _step(_context: Context, value: Any, characters: int = 0) -> Any:
    _spend(characters)
    return value


@pass_context
def _concat(_context: Context, values: list[Any]) -> str:
    texts = [str(v) for v in values]
    _spend(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _output(_context: Context, value: Any) -> Any:
    """Sees each value before it is put out."""
    if not isinstance(value, str):
        value = str(value)
    _spend(len(value))
    return value


def _range(*arguments: int) -> range:
    made = range(*arguments)
    _spend(64 * len(made))
    return made


def _join(separator: str, values: Any) -> str:
    texts = [str(v) for v in values]
    _spend(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old) if count < 0 else min(count, len(text) + 1)
    _spend(len(text) + found * len(new))
    return text.replace(old, new, count)


@pass_context
def _filter_join(context: Context, value: Any, d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = [context.environment.getitem(v, attribute) for v in value]
    return _join(str(d), value)


@pass_context
def _filter_replace(_context: Context, s: Any, old: Any, new: Any, count: Any = None) -> str:
    return _replace(str(s), str(old), str(new), -1 if count is None else int(count))


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
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@pass_context
def _filter_json(_context: Context, value: Any, *arguments: Any, **named: Any) -> str:
    text = to_json(value, *arguments, **named)
    _spend(len(text))
    return text


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that costs by the size of its arguments."""

    @functools.wraps(function)  # carries over which arguments Jinja passes of its own
    def counted(*arguments: Any, **named: Any) -> Any:
        _spend(sum(map(_size, arguments)))
        return function(*arguments, **named)

    return counted


def _refuse(message: object) -> None:
    """``raise_exception`` of the templates."""
    raise TemplateError(str(message))


# ---------------------------------------------------------------------------- environment


class _Generation(Extension):
    """``{% generation %}`` marks what a training mask covers; nothing to a prompt."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates, with a budget.

    ``trim_blocks``, ``lstrip_blocks``, ``break`` and ``continue``, ``tojson``,
    ``raise_exception``; no clock, no loader.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _Generation],
            finalize=_output,
        )
        self.filters = {
            name: _counted(function)
            for name, function in self.filters.items()
            if name not in _LEFT_OUT
        }
        self.filters |= {
            "join": _filter_join,
            "replace": _filter_replace,
            "tojson": _filter_json,
            _STEP: _step,
            _CONCAT: _concat,
        }
        del self.globals["lipsum"]
        self.globals |= {"range": _range, "raise_exception": _refuse}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Jinja's tree, with a step in every loop and macro, and ``~`` in our sight."""
        tree = super()._parse(source, name, filename)
        for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
            assert isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)  # noqa: S101
            text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
            node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(0), _STEP, nodes.Const(text))))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = _filter(node.test, _STEP)
        for concat in list(tree.find_all(nodes.Concat)):
            concat.nodes = [_filter(nodes.List(concat.nodes), _CONCAT)]
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """A sum, product, power or remainder, after a look at what will come of it."""
        if operator == "+":
            _spend(_size(left) + _size(right))
        elif operator == "*":
            for times, what in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(what, Sized):
                    _spend(min(max(times, 0) * len(what), 2 * MAX_ITEMS))
        elif operator == "%" and isinstance(left, str):
            _check_widths(left)
            _spend(len(left) + sum(map(_size, right if isinstance(right, tuple) else (right,))))
        if isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
            bits = left.bit_length() * right if operator == "**" else left.bit_length()
            if bits > MAX_BITS or right.bit_length() > MAX_BITS:
                raise TooMuchWork("a number too long")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method, after a look at what will come of it."""
        _spend()
        text = getattr(__obj, "__self__", None)
        name = getattr(__obj, "__name__", "")
        if isinstance(text, str) and not kwargs:
            if name == "join" and len(args) == 1:
                return _join(text, args[0])
            if name == "replace" and len(args) in (2, 3):
                return _replace(text, *args)
            if name in _PADDING and any(isinstance(a, int) and a > MAX_WIDTH for a in args):
                raise TooMuchWork(f"a width over {MAX_WIDTH:,}")
            _spend(len(text))
        elif name in _PADDING:
            raise TooMuchWork("a width by name")
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format``, unless it asks for great widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(value.__self__)
        return wrapped


def _filter(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, list(arguments), [], None, None)


def _check_widths(text: str) -> None:
    if _WIDE.search(text):
        raise TooMuchWork("a format with a great width")
