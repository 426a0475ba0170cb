"""MLX's affine quantisation: groups along the input with a scale and a bias each.

A matrix is ``weight`` uint32 [out, in·bits/32] (dense, lowest bits first), ``scales`` and
``biases`` [out, in/group] in the model's own dtype. A weight is number x scale + bias. Both ways
match ``mlx.core.quantize`` and ``dequantize`` bit for bit. Source: MLX
``mlx/backend/cpu/quantized.cpp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.weights.bits import pack, unpack
from qwharf.formats.weights.floats import from_f32, to_f32

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 64
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)
ROUTER = {"group_size": 64, "bits": 8}
"""How mlx-lm stores the router of a mixture, whatever the rest has."""
SMALLEST = np.float32(1e-7)


def dequantize(
    words: NDArray[np.uint32],
    scales: NDArray[np.float32],
    biases: NDArray[np.float32],
    *,
    bits: int,
    dtype: str,
) -> NDArray[np.float32]:
    """Values of a run of rows; product and sum are rounded to ``dtype``, as MLX does.

    Args:
        words: [rows, in * bits / 32].
        scales: [rows, groups].
        biases: as the scales.
        bits: 2 to 8.
        dtype: of the stored scales: ``BF16``, ``F16`` or ``F32``.

    Raises:
        ValueError: the shapes do not belong together.
    """
    rows, groups = scales.shape
    columns = words.shape[1] * 32 // bits
    if columns % groups:
        raise ValueError(f"{groups} groups do not divide {columns} columns")
    numbers = unpack(words, bits, columns).astype(np.float32).reshape(rows, groups, -1)
    numbers *= scales[:, :, None]
    numbers = to_f32(dtype, from_f32(dtype, numbers))
    numbers += biases[:, :, None]
    return to_f32(dtype, from_f32(dtype, numbers)).reshape(rows, columns)


def quantize(
    values: NDArray[np.float32], bits: int, group: int = GROUP
) -> tuple[NDArray[np.uint32], NDArray[np.float32], NDArray[np.float32]]:
    """Words, scales and biases of rows; the latter two to be stored in the model's dtype.

    The end of the range that is larger in magnitude is met exactly, and the scale is stretched so
    that zero is too. Numbers are chosen by the scale before it is rounded for storing.

    Raises:
        ValueError: rows are no multiple of ``group``.
    """
    rows, columns = values.shape
    if columns % group:
        raise ValueError(f"rows of {columns} are no multiple of {group}")
    largest = np.float32((1 << bits) - 1)
    shaped = values.reshape(rows, -1, group)
    low, high = shaped.min(axis=2), shaped.max(axis=2)
    from_low = np.abs(low) > np.abs(high)
    scales = np.maximum((high - low) / largest, SMALLEST)
    scales = np.where(from_low, scales, -scales)
    edge = np.where(from_low, low, high)
    steps = np.rint(edge / scales)
    through_zero = steps != 0
    scales = np.divide(edge, steps, out=scales, where=through_zero)
    biases = np.where(through_zero, edge, np.float32(0))
    numbers = shaped - biases[:, :, None]
    numbers /= scales[:, :, None]
    np.rint(numbers, out=numbers)
    np.clip(numbers, 0, largest, out=numbers)
    return pack(numbers.astype(np.uint8).reshape(rows, columns), bits), scales, biases


def config(bits: int, group: int, routers: list[str]) -> dict[str, Any]:
    """``quantization`` (and ``quantization_config``) of ``config.json``.

    Args:
        bits: of all but the routers.
        group: likewise.
        routers: module names of the routers, ``model.layers.0.mlp.gate`` ….
    """
    return {"group_size": group, "bits": bits, "mode": "affine"} | {
        name: dict(ROUTER) for name in routers
    }
