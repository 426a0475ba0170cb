"""A Jinja environment for templates from strangers: they cannot reach code, nor work for ever.

Jinja's own sandbox keeps a template from attributes and functions that lead to code. What it does
not bound is work: nested loops, texts that double, lists of lists of lists, ``"%0999999999d"``. So
each rendering has a budget (:mod:`qwharf.formats.budget`), and what is not needed in a chat
template and could get around it is left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sized
from typing import Any, cast

from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from qwharf.formats import template_filters as own
from qwharf.formats.budget import TooMuchWork, compared, spend, weigh

MAX_WIDTH = 10_000

_STEP, _CONCAT, _COMPARED, _SEARCHED, _SLICED = (
    f"{what} within the budget" for what in ("step", "concat", "compared", "searched", "sliced")
)
"""Filters of ours, which the syntax tree gets; used by name they only cost."""
_LEFT_OUT = (
    "center", "format", "indent", "wordwrap", "xmlattr", "pprint", "slice", "batch", "random",
    "urlize", "truncate", "filesizeformat", "striptags", "groupby", "sum",
)  # fmt: skip
"""Filters that pad or repeat as a template wishes, and that no chat template needs."""
_SHALLOW = (
    "length", "count", "first", "last", "items", "default", "d", "map", "select", "reject",
    "selectattr", "rejectattr", "reverse", "attr",
)  # fmt: skip
"""Filters that do not look into the items of a list."""
_COMPARING = (
    "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<=", "gt", ">", "greaterthan",
    "ge", ">=", "in",
)  # fmt: skip
"""Tests that do."""
_TEXT_METHODS = (
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "format_map",
    "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric",
    "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit",
    "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
)  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    **{t: frozenset() for t in (bytes, int, float, complex, set, frozenset, range)},
}
"""What may be called on plain values. Left out are those that change them, and makers of great
things such as ``str.translate`` and ``int.to_bytes``."""
_PADDING = ("center", "ljust", "rjust", "zfill")
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_NESTED_FIELD = re.compile(r"%[^a-zA-Z%]*\*|\{[^{}]*\{")
_WIDTH = re.compile(r"[0-9]+")


# ------------------------------------------------------------------------------ syntax tree


def _filter(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, list(arguments), [], None, None)


class _Meter(NodeTransformer):
    """Puts our filters where work is done that the environment would not see."""

    def _body(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(0), _STEP, nodes.Const(text))))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = _filter(node.test, _STEP)
        return node

    visit_For = visit_Macro = visit_CallBlock = _body

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filter(nodes.List(node.nodes), _CONCAT)]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter(node.expr, _COMPARED)
        for operand in node.ops:
            within = operand.op in ("in", "notin")
            operand.expr = _filter(operand.expr, _SEARCHED if within else _COMPARED)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _filter(node.key, _COMPARED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, _SLICED) if isinstance(node.arg, nodes.Slice) else node


class _Generation(Extension):
    """``{% generation %}`` marks what a training mask covers; nothing to a prompt."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# ---------------------------------------------------------------------------- environment


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of transformers' chat templates, with a budget.

    ``trim_blocks``, ``lstrip_blocks``, ``break`` and ``continue``, ``tojson``,
    ``raise_exception``; no clock, no loader.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _Generation],
            finalize=own.output,
        )
        self.filters = {
            name: own.counted(function, own.pay_for if name in _SHALLOW else weigh)
            for name, function in self.filters.items()
            if name not in _LEFT_OUT
        }
        self.filters |= {
            "join": own.join_items,
            "replace": own.replace_text,
            "list": own.as_list,
            "int": own.as_int,
            "tojson": own.json_text,
            _STEP: own.pass_step,
            _CONCAT: own.concat,
            _COMPARED: own.pass_compared,
            _SEARCHED: own.pass_searched,
            _SLICED: own.pass_sliced,
        }
        self.tests = {
            name: own.counted(cast(Any, function), compared if name in _COMPARING else own.nothing)
            for name, function in self.tests.items()
        }
        del self.globals["lipsum"]
        self.globals |= {"range": own.bounded_range, "raise_exception": own.raise_exception}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Jinja's tree, with every loop, macro and comparison in our sight."""
        tree = super()._parse(source, name, filename)
        _Meter().visit(tree)
        tree.set_environment(self)
        return tree

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of plain values only what is listed; of Jinja's own objects what Jinja allows."""
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item; one that is looked up by a list of things costs what these weigh."""
        compared(argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, after a look at what will come of it."""
        if isinstance(left, int) and isinstance(right, int):
            own.short(left)
            own.short(right)
            if operator == "**" and left.bit_length() * right > own.MAX_BITS:
                raise TooMuchWork("a number too long")
            spend()
        elif operator == "+":
            own.pay_for(left)
            own.pay_for(right)
        elif operator == "*":
            for times, what in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(what, Sized):
                    size = max(times, 0) * len(what)
                    text = isinstance(what, str | bytes)
                    spend(characters=size if text else 0, items=0 if text else size)
        elif operator == "%" and isinstance(left, str):
            _check_format(left, right)
        else:
            spend()
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method, after a look at what will come of it."""
        spend()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        # Jinja hands its own variables along, for the functions that ask for a context.
        named = {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}
        if isinstance(owner, str):
            if name == "join":
                return own.join(owner, *args, **named)
            if name == "replace":
                return own.replace(owner, *args, **named)
            if name in ("split", "rsplit"):
                return own.split(__obj, *args, **named)
            if name == "splitlines":
                spend(items=sum(map(owner.count, _LINE_ENDS)))
            if name in _PADDING:
                widths = [a for a in args if isinstance(a, int)]
                if max(widths, default=0) > MAX_WIDTH:
                    raise TooMuchWork(f"a width over {MAX_WIDTH:,}")
                spend(sum(widths))
            spend(len(owner))
        elif name == "copy":
            own.pay_for(owner)
        if not (isinstance(__obj, Macro) or __obj is Namespace):  # these only keep what they get
            weigh((args, named))
            if isinstance(owner, list | tuple):  # ``index`` and ``count`` compare
                weigh(owner)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` and ``str.format_map``, at their price."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text, inner = value.__self__, wrapped

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> str:
            _check_format(text, (args, kwargs))
            return inner(*args, **kwargs)

        return counted


def _check_format(text: str, values: object) -> None:
    """Pay for a format: each field may show all values, and pad."""
    if _NESTED_FIELD.search(text):
        raise TooMuchWork("a width that is an argument")
    widths = [int(digits) for digits in _WIDTH.findall(text) if len(digits) < 19]
    if max(widths, default=0) > MAX_WIDTH or any(len(d) > 18 for d in _WIDTH.findall(text)):
        raise TooMuchWork("a format with a great width")
    fields = text.count("{") + text.count("%")
    spend(len(text) + sum(widths) + fields * weigh(values))
