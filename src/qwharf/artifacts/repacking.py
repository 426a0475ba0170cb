"""Numbers that somebody has chosen already, moved to another layout without choosing them anew.

What compressed-tensors, AWQ and GPTQ store of a matrix is the same: small whole numbers, a scale
and perhaps a zero point for each run of 128 inputs. Where source and target agree in that, only the
packing differs. So what a calibration has found (:mod:`qwharf.calibration`) is kept to the number;
scales are rounded to the dtype of the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.artifacts.encoders import (
    AwqEncoder,
    Encoder,
    GptqEncoder,
    PackedEncoder,
    Part,
    ScaledEncoder,
)
from qwharf.artifacts.matrices import Matrix, Packed, Scaled
from qwharf.artifacts.positioned import Files
from qwharf.formats.weights import awq, compressed, gptq
from qwharf.formats.weights.bits import unpack
from qwharf.formats.weights.floats import from_f32, to_f32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Repacker:
    """Makes what ``encoder`` makes, out of the numbers of ``matrix``."""

    encoder: Encoder
    matrix: Packed | Scaled

    @property
    def step(self) -> int:
        """See :class:`Encoder`."""
        return self.encoder.step

    def parts(self, name: str, rows: int, columns: int, stack: int = 1) -> list[Part]:
        """See :class:`Encoder`."""
        return self.encoder.parts(name, rows, columns, stack)

    def encode(self, rows: F32) -> Sequence[NDArray[Any]]:
        """See :class:`Encoder`: chooses anew."""
        return self.encoder.encode(rows)

    def repack(self, files: Files, first: int, rows: int) -> Sequence[NDArray[Any]]:
        """The pieces of rows ``first`` to ``first + rows``, in order.

        Raises:
            InvalidFile: the file cannot be read or ends early.
            ValueError: a scale is no finite number.
        """
        matrix, encoder = self.matrix, self.encoder
        scales = to_f32(matrix.scales.dtype, files.rows(matrix.scales, first, rows))
        if not np.isfinite(scales).all():
            raise ValueError("a scale that is no finite number")
        words = files.rows(matrix.region, first, rows)
        if isinstance(encoder, GptqEncoder):
            return gptq.from_packed(words, scales, encoder.bits)
        if isinstance(encoder, AwqEncoder) and isinstance(matrix, Packed):
            zeros = np.full(scales.shape, awq.MIDDLE, np.uint8)
            if matrix.zero_points is not None:
                zeros = (matrix.zeros(files, first, rows) + awq.MIDDLE).astype(np.uint8)
            return awq.from_numbers(unpack(words, matrix.bits, matrix.columns), zeros, scales)
        return [words, from_f32("BF16", scales)]


def repacked(encoder: Encoder, matrix: Matrix) -> Encoder:
    """One that keeps the numbers of ``matrix`` if the target can hold them, else ``encoder``."""
    if isinstance(matrix, Packed) and _same_groups(matrix):
        if isinstance(encoder, AwqEncoder) and matrix.bits == 4:
            return Repacker(encoder, matrix)
        symmetric = matrix.zero_points is None
        if isinstance(encoder, GptqEncoder | PackedEncoder) and symmetric:
            return Repacker(encoder, matrix) if matrix.bits == encoder.bits else encoder
    if isinstance(matrix, Scaled) and isinstance(encoder, ScaledEncoder):
        by_row = matrix.scales.shape[0] == matrix.shape[0]
        if by_row and matrix.region.dtype == encoder.dtype:
            return Repacker(encoder, matrix)
    return encoder


def _same_groups(matrix: Packed) -> bool:
    in_order = matrix.groups is None
    return in_order and matrix.columns == matrix.scales.shape[1] * compressed.GROUP
