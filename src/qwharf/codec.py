"""Nouns to JSON and back, by their type hints: for the state database, the API and ``--json``.

Only what :mod:`qwharf.types` uses is supported: frozen dataclasses, tuples, mappings, unions with
``None``, literals, paths, frozensets. Unknown keys are refused, so a typo or a newer writer is
noticed instead of being dropped.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from qwharf.types import Format

T = TypeVar("T")


def encode(value: Any) -> Any:
    """``value`` as JSON-able data; a :class:`Format` becomes ``container:quantization``."""
    if isinstance(value, Format):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(encode(v) for v in value)
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def decode(cls: type[T], data: Any, where: str = "") -> T:
    """Build a ``cls`` from what :func:`encode` made.

    Raises:
        ValueError: ``data`` does not have the shape; the text names the place.
    """
    return typing.cast(T, _decode(cls, data, where or cls.__name__))


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if hint is Format:
        container, _, quantization = _expect(data, str, where).partition(":")
        if container not in ("gguf", "safetensors", "mlx") or not quantization:
            raise ValueError(f"{where}: {data!r} is not container:quantization")
        return Format(typing.cast(Any, container), quantization)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), data, where)
    if origin is Literal:
        if data not in args:
            raise ValueError(f"{where}: {data!r} is none of {', '.join(map(repr, args))}")
        return data
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), data, where)
    if origin is tuple:
        items = _expect(data, list, where)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_decode(args[0], x, f"{where}[{i}]") for i, x in enumerate(items))
        if len(items) != len(args):
            raise ValueError(f"{where}: {len(items)} items, not {len(args)}")
        pairs = zip(args, items, strict=True)
        return tuple(_decode(a, x, f"{where}[{i}]") for i, (a, x) in enumerate(pairs))
    if origin is frozenset:
        return frozenset(_decode(args[0], x, where) for x in _expect(data, list, where))
    if origin is not None and issubclass(origin, Mapping):
        mapping = _expect(data, dict, where)
        return {
            _decode(args[0], k, where): _decode(args[1], v, f"{where}.{k}")
            for k, v in mapping.items()
        }
    if hint is Path:
        return Path(_expect(data, str, where))
    if hint is float:
        return float(_expect(data, (int, float), where))
    return _expect(data, hint, where)


def _decode_dataclass(cls: type, data: Any, where: str) -> Any:
    fields = {f.name for f in dataclasses.fields(cls)}
    unknown = set(_expect(data, dict, where)) - fields
    if unknown:
        raise ValueError(f"{where}: unknown keys {', '.join(sorted(map(str, unknown)))}")
    hints = _hints(cls)
    try:
        return cls(**{k: _decode(hints[k], v, f"{where}.{k}") for k, v in data.items()})
    except TypeError as e:
        raise ValueError(f"{where}: {e}") from e


def _expect(data: Any, kind: Any, where: str) -> Any:
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        raise ValueError(f"{where}: {type(data).__name__} {str(data)[:40]!r} is not {kind}")
    return data
