"""Stored matrices, whatever their format, read as rows of float32.

Each class is one way to store a matrix [out, in]: the regions of files that make it up, and how a
run of its rows is read from them. Nothing is held between two reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qwharf.artifacts.positioned import Files, Region
from qwharf.formats.ggml_types import GGML_TYPES, GgmlType
from qwharf.formats.weights import awq, compressed, fp8, ggml, gptq, mlx
from qwharf.formats.weights.floats import to_f32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


class Matrix(Protocol):
    """A matrix that can be read by runs of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (outputs) and columns (inputs)."""

    @property
    def step(self) -> int:
        """Runs begin at multiples of this."""

    @property
    def region(self) -> Region:
        """The largest of its parts, for messages."""

    @property
    def kind(self) -> GgmlType | None:
        """Of rows that lie one after the other in ``region`` and are all there is to it."""

    def read(self, files: Files, first: int, rows: int) -> F32:
        """Rows ``first`` to ``first + rows``, [rows, columns].

        Raises:
            InvalidFile: the file cannot be read or ends early.
            ValueError: the stored numbers make no sense together.
        """


@dataclass(frozen=True, slots=True)
class Plain:
    """Floats as they are: BF16, F16 or F32. A vector is one row."""

    region: Region
    step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape

    @property
    def kind(self) -> GgmlType:
        """See :class:`Matrix`."""
        return GGML_TYPES[self.region.dtype]

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        return to_f32(self.region.dtype, files.rows(self.region, first, rows))


@dataclass(frozen=True, slots=True)
class Ggml:
    """Rows of a GGUF tensor; the region holds bytes."""

    region: Region
    kind: GgmlType
    step: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, size = self.region.shape
        return rows, size // self.kind.block_bytes * self.kind.block_elements

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        raw = files.rows(self.region, first, rows)
        return ggml.dequantize(self.kind, raw.reshape(-1)).reshape(rows, -1)


@dataclass(frozen=True, slots=True)
class BlockFp8:
    """e4m3 with a scale per block."""

    region: Region
    scales: Region
    block: tuple[int, int]
    step: int = 1
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        scales = to_f32(self.scales.dtype, files.whole(self.scales))
        weight = files.rows(self.region, first, rows)
        return fp8.dequantize(weight, scales, self.block, first)


@dataclass(frozen=True, slots=True)
class Scaled:
    """compressed-tensors' int8 or e4m3 with a scale per row, or one for all."""

    region: Region
    scales: Region
    step: int = 1
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        one = self.scales.shape[0] == 1
        stored = files.whole(self.scales) if one else files.rows(self.scales, first, rows)
        weight = files.rows(self.region, first, rows)
        scales = to_f32(self.scales.dtype, stored)
        if self.region.dtype == "I8":
            return compressed.dequantize_int8(weight, scales)
        return compressed.dequantize_fp8(weight, scales)


@dataclass(frozen=True, slots=True)
class Packed:
    """compressed-tensors' packed whole numbers."""

    region: Region
    scales: Region
    bits: int
    columns: int
    zero_points: Region | None = None
    """[words, groups]: packed along the rows."""
    groups: Region | None = None
    step: int = 32
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape[0], self.columns

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        zeros = groups = None
        if self.zero_points is not None:
            zeros = self.zeros(files, first, rows)
        if self.groups is not None:
            groups = files.whole(self.groups).reshape(-1)
        return compressed.dequantize_packed(
            files.rows(self.region, first, rows),
            to_f32(self.scales.dtype, files.rows(self.scales, first, rows)),
            bits=self.bits,
            columns=self.columns,
            zero_points=zeros,
            groups=groups,
        )

    def zeros(self, files: Files, first: int, rows: int) -> NDArray[np.int32]:
        """Zero points of a run of rows, signed: [rows, groups].

        Raises:
            InvalidFile: the file cannot be read or ends early.
            ValueError: there are none.
        """
        if self.zero_points is None:
            raise ValueError("no zero points")
        at, count = first * self.bits // 32, compressed_words(rows, self.bits)
        words = files.rows(self.zero_points, at, count)  # 32 rows begin a word, whatever the bits
        return compressed.unpack_zero_points(words, self.bits, rows)


def compressed_words(rows: int, bits: int) -> int:
    """Words that ``rows`` packed numbers take."""
    return -(-rows * bits // 32)


@dataclass(frozen=True, slots=True)
class Awq:
    """AWQ's transposed words of eight outputs."""

    region: Region
    scales: Region
    zeros: Region | None
    step: int = 32
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.scales.shape[1], self.region.shape[0]

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        words = (first // 8, rows // 8)
        return awq.dequantize(
            files.columns(self.region, *words),
            None if self.zeros is None else files.columns(self.zeros, *words),
            to_f32(self.scales.dtype, files.columns(self.scales, first, rows)),
        )


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ's transposed words of inputs."""

    region: Region
    scales: Region
    zeros: Region
    groups: Region | None
    bits: int
    version: int
    step: int = 32
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape[1], self.region.shape[0] * 32 // self.bits

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        inputs = self.shape[1]
        groups: NDArray[Any]
        if self.groups is not None:
            groups = files.whole(self.groups).reshape(-1)
        else:
            groups = gptq.group_index(inputs, -(-inputs // self.scales.shape[0]))
        zeros = files.columns(self.zeros, first * self.bits // 32, rows * self.bits // 32)
        return gptq.dequantize(
            files.columns(self.region, first, rows),
            zeros,
            to_f32(self.scales.dtype, files.columns(self.scales, first, rows)),
            groups,
            bits=self.bits,
            version=self.version,
        )


@dataclass(frozen=True, slots=True)
class Mlx:
    """MLX's affine numbers."""

    region: Region
    scales: Region
    biases: Region
    bits: int
    step: int = 1
    kind: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.region.shape[0], self.region.shape[1] * 32 // self.bits

    def read(self, files: Files, first: int, rows: int) -> F32:
        """See :class:`Matrix`."""
        return mlx.dequantize(
            files.rows(self.region, first, rows),
            to_f32(self.scales.dtype, files.rows(self.scales, first, rows)),
            to_f32(self.biases.dtype, files.rows(self.biases, first, rows)),
            bits=self.bits,
            dtype=self.scales.dtype,
        )
