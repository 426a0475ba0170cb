"""Block FP8, as in the official ``-FP8`` repositories: e4m3 with one scale per 128 x 128 block.

A matrix is ``weight`` (e4m3, [out, in]) and ``weight_scale_inv`` (bf16, [⌈out/128⌉, ⌈in/128⌉]).
Despite its name the second is what one multiplies by. Source: transformers
``integrations/finegrained_fp8.py``, whose result this matches bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.weights.floats import E4M3_MAX, e4m3_to_f32, f32_to_e4m3, round_to_bf16

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 128
TINY = np.float32(2.0**-120)
"""Scale of a block of zeros; any does, but zero would not."""


def scale_shape(rows: int, columns: int, block: tuple[int, int] = (BLOCK, BLOCK)) -> list[int]:
    """Shape of the scales of a matrix."""
    return [-(-rows // block[0]), -(-columns // block[1])]


def dequantize(
    weight: NDArray[np.uint8],
    scales: NDArray[np.float32],
    block: tuple[int, int] = (BLOCK, BLOCK),
    first_row: int = 0,
) -> NDArray[np.float32]:
    """Values of a run of rows.

    Args:
        weight: e4m3 patterns, [rows, in].
        scales: of the whole matrix.
        block: rows and columns that share a scale.
        first_row: where the run begins in the matrix.
    """
    rows, columns = weight.shape
    by_row = scales[(first_row + np.arange(rows)) // block[0]]
    values = e4m3_to_f32(weight)
    for n in range(scales.shape[1]):
        part = values[:, n * block[1] : min((n + 1) * block[1], columns)]
        part *= by_row[:, n : n + 1]
    return values


def quantize(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Patterns [rows, in], and scales that bf16 has exactly.

    The largest magnitude of a block becomes 448, the largest number of e4m3. The run must begin at
    a block's first row.
    """
    rows, columns = values.shape
    shape = scale_shape(rows, columns)
    padded = values
    if rows % BLOCK or columns % BLOCK:
        padded = np.zeros((shape[0] * BLOCK, shape[1] * BLOCK), np.float32)
        padded[:rows, :columns] = values
    blocks = padded.reshape(shape[0], BLOCK, shape[1], BLOCK)
    largest = np.abs(blocks).max(axis=(1, 3))
    scales = np.maximum(round_to_bf16(largest / np.float32(E4M3_MAX)), TINY)
    scaled = np.divide(blocks, scales[:, None, :, None], dtype=np.float32)
    made = f32_to_e4m3(scaled).reshape(padded.shape)
    return np.ascontiguousarray(made[:rows, :columns]), scales


def config(modules_to_not_convert: list[str] | None = None) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``."""
    made: dict[str, Any] = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [BLOCK, BLOCK],
    }
    if modules_to_not_convert is not None:
        made["modules_to_not_convert"] = modules_to_not_convert
    return made
