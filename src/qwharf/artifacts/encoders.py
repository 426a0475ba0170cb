"""How rows of float32 become the tensors of a format.

An encoder names the tensors that one matrix is stored as (:class:`Part`), and makes the piece of
each that belongs to a run of rows. What it makes of a run does not depend on where the run ends, so
matrices of any size can be encoded in small pieces and by several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from qwharf.formats.ggml_types import GGML_TYPES, GgmlType
from qwharf.formats.weights import awq, compressed, fp8, gptq, mlx
from qwharf.formats.weights.bits import packed_words
from qwharf.formats.weights.floats import from_f32
from qwharf.quantize import ggml, grouped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One tensor of a stored matrix."""

    name: str
    dtype: str
    grid: tuple[int, int]
    """Its rows and columns, however it is shaped."""
    shape: tuple[int, ...]
    """As the header says."""
    along: Literal["rows", "columns", "none"] = "rows"
    """Which way the matrix's rows (its outputs) run in it; ``none``: the data is known already."""
    unit: int = 1
    """How many outputs share one of its rows (or columns)."""
    data: NDArray[Any] | None = None


class Encoder(Protocol):
    """Makes one format."""

    @property
    def step(self) -> int:
        """Runs of rows begin at multiples of this."""

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """The tensors for the matrix ``name`` (which ends in ``.weight``).

        Args:
            name: as in a checkpoint.
            rows: of all matrices of a stack together.
            columns: of each.
            stack: how many matrices are stored as one tensor of three dimensions; 1: a matrix.

        Raises:
            ValueError: the format cannot hold this shape; says why.
        """

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """For a run of rows its piece of each part, in order, but those whose data is known."""


def encode_stored(
    encoder: Encoder, kind: GgmlType, raw: NDArray[np.uint8], columns: int
) -> Sequence[NDArray[Any]] | None:
    """What ``encoder`` makes of rows as they are stored; ``None`` where it needs their values.

    Args:
        encoder: of the target.
        kind: of the rows.
        raw: their bytes, flat. They are the result where source and target store the same.
        columns: elements of a row.
    """
    if isinstance(encoder, PlainEncoder):
        return [raw] if kind.name == encoder.dtype else None
    if isinstance(encoder, GgmlEncoder) and kind.name == encoder.kind.name:
        return [raw]
    if kind.name in ggml.FLOATS and isinstance(encoder, GgmlEncoder | MlxEncoder | BlockFp8Encoder):
        return encoder.encode_raw(kind.name, raw, columns)
    return None


def _flat(rows: F32) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def _shape(rows: int, columns: int, stack: int) -> tuple[int, ...]:
    return (rows, columns) if stack == 1 else (stack, rows // stack, columns)


@dataclass(frozen=True, slots=True)
class PlainEncoder:
    """Floats of one dtype."""

    dtype: str
    vector: bool = False
    step: int = 1

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        shape = (columns,) if self.vector else _shape(rows, columns, stack)
        return [Part(name=name, dtype=self.dtype, grid=(rows, columns), shape=shape)]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        return [from_f32(self.dtype, rows)]


@dataclass(frozen=True, slots=True)
class GgmlEncoder:
    """A tensor type of GGUF, by llama.cpp's own quantisers."""

    kind: GgmlType
    vector: bool = False
    importance: F32 | None = field(default=None, repr=False, compare=False)
    """How much an error weighs in each column; only types of blocks take notice."""
    step: int = 1

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        grid = (rows, self.kind.size_bytes(columns))
        shape = (columns,) if self.vector else _shape(rows, columns, stack)
        return [Part(name=name, dtype="U8", grid=grid, shape=shape)]

    def encode_raw(
        self, source: str, raw: NDArray[np.uint8], columns: int
    ) -> Sequence[NDArray[Any]] | None:
        """What :meth:`encode` makes of stored floats, if there is a kernel for it."""
        rows = raw.size // GGML_TYPES[source].size_bytes(columns)
        made = np.empty(rows * self.kind.size_bytes(columns), np.uint8)
        done = ggml.encode_raw(self.kind, source, raw, columns, made, self.importance)
        return [made] if done else None

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        made = np.empty(rows.shape[0] * self.kind.size_bytes(rows.shape[1]), np.uint8)
        ggml.encode_rows(self.kind, np.ascontiguousarray(rows), made, self.importance)
        return [made.reshape(rows.shape[0], -1)]


@dataclass(frozen=True, slots=True)
class BlockFp8Encoder:
    """Block FP8 with bf16 scales, as in Qwen's own repositories."""

    step: int = fp8.BLOCK

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        high, wide = fp8.scale_shape(rows, columns)
        scale = name + "_scale_inv"
        return [
            Part(name=name, dtype="F8_E4M3", grid=(rows, columns), shape=(rows, columns)),
            Part(name=scale, dtype="BF16", grid=(high, wide), shape=(high, wide), unit=fp8.BLOCK),
        ]

    def encode_raw(
        self, source: str, raw: NDArray[np.uint8], columns: int
    ) -> Sequence[NDArray[Any]] | None:
        """What :meth:`encode` makes of stored floats, if there is a kernel for it."""
        made = grouped.fp8_blocks(source, raw, columns)
        return None if made is None else [made[0], from_f32("BF16", made[1])]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        if fast := self.encode_raw("F32", _flat(rows), rows.shape[1]):
            return fast
        made, scales = fp8.quantize(rows)
        return [made, from_f32("BF16", scales)]


@dataclass(frozen=True, slots=True)
class PackedEncoder:
    """compressed-tensors' W4A16."""

    bits: int = 4
    step: int = 1

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        _check_group(columns, compressed.GROUP)
        words = (rows, packed_words(columns, self.bits))
        groups = (rows, columns // compressed.GROUP)
        return [
            Part(name=name + "_packed", dtype="I32", grid=words, shape=words),
            Part(name=name + "_scale", dtype="BF16", grid=groups, shape=groups),
            Part(
                name=name + "_shape",
                dtype="I64",
                grid=(1, 2),
                shape=(2,),
                along="none",
                data=np.array([[rows, columns]], np.int64),
            ),
        ]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        made, scales = compressed.quantize_packed(rows, self.bits)
        return [made, from_f32("BF16", scales)]


@dataclass(frozen=True, slots=True)
class ScaledEncoder:
    """compressed-tensors' W8A8, in int8 or e4m3."""

    dtype: Literal["I8", "F8_E4M3"]
    step: int = 1

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        return [
            Part(name=name, dtype=self.dtype, grid=(rows, columns), shape=(rows, columns)),
            Part(name=name + "_scale", dtype="BF16", grid=(rows, 1), shape=(rows, 1)),
        ]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        quantize = compressed.quantize_int8 if self.dtype == "I8" else compressed.quantize_fp8
        made, scales = quantize(rows)
        return [made, from_f32("BF16", scales)]


@dataclass(frozen=True, slots=True)
class AwqEncoder:
    """AWQ's layout, rounded to nearest."""

    step: int = 32

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        _check_group(columns, awq.GROUP)
        if rows % 8:
            raise ValueError(f"{rows} outputs are no multiple of 8")
        module = name.removesuffix(".weight")
        groups = columns // awq.GROUP
        return [
            _across(f"{module}.qweight", "I32", columns, rows // 8, 8),
            _across(f"{module}.qzeros", "I32", groups, rows // 8, 8),
            _across(f"{module}.scales", "F16", groups, rows, 1),
        ]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        return awq.quantize(rows)


@dataclass(frozen=True, slots=True)
class GptqEncoder:
    """GPTQ's layout, version 1, rounded to nearest."""

    bits: int
    step: int = 32

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        _check_group(columns, gptq.GROUP)
        per_word = 32 // self.bits
        if rows % per_word:
            raise ValueError(f"{rows} outputs are no multiple of {per_word}")
        module = name.removesuffix(".weight")
        groups = columns // gptq.GROUP
        return [
            Part(
                name=f"{module}.g_idx",
                dtype="I32",
                grid=(1, columns),
                shape=(columns,),
                along="none",
                data=gptq.group_index(columns)[None],
            ),
            _across(f"{module}.qweight", "I32", columns // per_word, rows, 1),
            _across(f"{module}.qzeros", "I32", groups, rows // per_word, per_word),
            _across(f"{module}.scales", "F16", groups, rows, 1),
        ]

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        return gptq.quantize(rows, self.bits)


@dataclass(frozen=True, slots=True)
class MlxEncoder:
    """MLX's affine quantisation."""

    bits: int
    group: int
    dtype: str
    """Of scales and biases."""
    step: int = 1

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        _check_group(columns, self.group)
        module = name.removesuffix(".weight")
        words, groups = columns * self.bits // 32, columns // self.group
        return [
            Part(name=name, dtype="U32", grid=(rows, words), shape=_shape(rows, words, stack)),
            *(
                Part(
                    name=f"{module}.{kind}",
                    dtype=self.dtype,
                    grid=(rows, groups),
                    shape=_shape(rows, groups, stack),
                )
                for kind in ("scales", "biases")
            ),
        ]

    def encode_raw(
        self, source: str, raw: NDArray[np.uint8], columns: int
    ) -> Sequence[NDArray[Any]] | None:
        """What :meth:`encode` makes of stored floats, if there is a kernel for it."""
        made = grouped.mlx_groups(source, raw, columns, self.bits, self.group)
        return None if made is None else self._stored(*made)

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`."""
        fast = self.encode_raw("F32", _flat(rows), rows.shape[1])
        return fast or self._stored(*mlx.quantize(rows, self.bits, self.group))

    def _stored(self, words: NDArray[np.uint32], *floats: F32) -> Sequence[NDArray[Any]]:
        return [words, *(from_f32(self.dtype, f) for f in floats)]


def _check_group(columns: int, group: int) -> None:
    if columns % group:
        raise ValueError(f"rows of {columns} do not divide into groups of {group}")


def _across(name: str, dtype: str, rows: int, columns: int, unit: int) -> Part:
    grid = (rows, columns)
    return Part(name=name, dtype=dtype, grid=grid, shape=grid, along="columns", unit=unit)
