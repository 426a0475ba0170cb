"""Values from outside, made fit for printing and for JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from qwharf.formats.gguf import Skipped

T = TypeVar("T")

LIST_SHOWN = 32
TEXT_SHOWN = 2_000


def clean(text: str) -> str:
    """``text`` without the lone surrogates that stand for bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def mapped(value: T, change: Callable[[str], str]) -> T:
    """``value``, a dataclass of dataclasses, lists and mappings, with ``change`` on every text."""
    made: Any = value
    if isinstance(value, str):
        made = change(value)
    elif isinstance(value, tuple | list):
        made = type(value)(mapped(v, change) for v in value)
    elif isinstance(value, Mapping):
        made = {mapped(k, change): mapped(v, change) for k, v in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        own = {f.name: mapped(getattr(value, f.name), change) for f in fields(value)}
        made = replace(value, **own)
    return cast(T, made)


def plain(value: Any) -> Any:
    """``value`` as JSON has it; long lists and texts are only measured."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_SHOWN else f"{len(value):,} characters"
    if isinstance(value, Skipped):
        return f"{value.length:,} items"
    if isinstance(value, list):
        return [plain(v) for v in value] if len(value) <= LIST_SHOWN else f"{len(value):,} items"
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, float) and value != value:  # NaN is no JSON
        return "nan"
    if value in (float("inf"), float("-inf")):
        return str(value)
    return value
