"""Tensors summed up: by type, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf import GgufTensor
from qwharf.formats.safetensors import TensorEntry
from qwharf.formats.tensors import gguf_tensors
from qwharf.inspection.kinds import module_of, order_of, place_of
from qwharf.inspection.report import Group, Tensor
from qwharf.types import Architecture

SHAPES_SHOWN = 4
UNPACKED = frozenset({*GGML_TYPES, "F8_E4M3", "F8_E5M2"} - {"I8", "I16", "I32", "I64"})
"""Types whose stored shape is the matrix's own."""


def of_gguf(tensors: Iterable[GgufTensor]) -> tuple[Tensor, ...]:
    """Rows for the tensors of a GGUF file and its other parts."""
    return tuple(_row(t.name, t.type.name, t.shape, t.size_bytes, t.path.name) for t in tensors)


def of_safetensors(tensors: Mapping[str, tuple[Path, TensorEntry]]) -> tuple[Tensor, ...]:
    """Rows for the tensors of safetensors files."""
    return tuple(
        _row(e.name, e.dtype, e.shape, e.size_bytes, path.name) for path, e in tensors.values()
    )


def _row(name: str, type: str, shape: tuple[int, ...], size: int, file: str) -> Tensor:
    place = place_of(name)
    return Tensor(
        name=name,
        type=type,
        shape=shape,
        size_bytes=size,
        file=file,
        kind=place.kind,
        layer=place.layer,
    )


def by_type(tensors: Iterable[Tensor]) -> tuple[Group, ...]:
    """One group per type, the one of most bytes first."""
    groups = _groups(tensors, lambda t: t.type)
    return tuple(sorted(groups, key=lambda g: (-g.size_bytes, g.name)))


def by_kind(tensors: Iterable[Tensor], arch: Architecture | None = None) -> tuple[Group, ...]:
    """One group per kind, in the order of the computation.

    Args:
        tensors: of a whole model, or some.
        arch: the model, where known: then the shapes are those of the matrices, not of the words
            that they are packed into.
    """
    shapes = shapes_of(arch) if arch else {}
    groups = _groups(tensors, lambda t: t.kind, shapes)
    return tuple(sorted(groups, key=lambda g: order_of(g.name)))


def shapes_of(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """The shape of each kind of matrix, experts stacked."""
    return {place_of(spec.name).kind: spec.shape for spec in gguf_tensors(arch)}


def _groups(
    tensors: Iterable[Tensor],
    key: Callable[[Tensor], str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> list[Group]:
    members: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        members.setdefault(key(tensor), []).append(tensor)
    return [_group(name, group, shapes or {}) for name, group in members.items()]


def _group(name: str, group: Sequence[Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Group:
    largest: dict[str, Tensor] = {}
    for tensor in group:
        module = module_of(tensor.name)
        held = largest.get(module)
        if held is None or tensor.size_bytes > held.size_bytes:
            largest[module] = tensor
    mains = largest.values()
    return Group(
        name=name,
        matrices=len(mains),
        tensors=len(group),
        size_bytes=sum(t.size_bytes for t in group),
        types=dict(Counter(t.type for t in mains).most_common()),
        shapes=tuple(
            shape
            for shape, _ in Counter(_shape(t, shapes) for t in mains).most_common(SHAPES_SHOWN)
        ),
    )


def _shape(tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Of the matrix that ``tensor`` is the largest part of."""
    known = shapes.get(tensor.kind)
    if known is None or tensor.type in UNPACKED:
        return tensor.shape
    return known[-2:] if ".experts." in tensor.name else known


def bits_per_weight(size_bytes: int, parameters: int | None) -> float | None:
    """Of all tensors together."""
    return round(8 * size_bytes / parameters, 4) if parameters else None
