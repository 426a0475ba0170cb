"""compressed-tensors: the format of llm-compressor, which vLLM and SGLang read.

Three of its kinds are written here, and read:

- *pack-quantized* (W4A16, W8A16): ``weight_packed`` int32 [out, ⌈in·bits/32⌉] holds numbers
  from 0 on, which are half the range above the signed ones; ``weight_scale`` [out, groups];
  ``weight_shape`` int64 [2]; with zero points ``weight_zero_point`` int32, packed along *out*, and
  with reordered groups ``weight_g_idx`` int32 [in].
- *int-quantized* (W8A8): ``weight`` int8 [out, in], ``weight_scale`` [out, 1].
- *float-quantized* (FP8): ``weight`` e4m3 [out, in], ``weight_scale`` [out, 1] or one for all.

Source: compressed-tensors ``compressors/{pack,naive}_quantized``, ``quantization/lifecycle``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.weights.bits import pack, unpack
from qwharf.formats.weights.floats import E4M3_MAX, e4m3_to_f32, f32_to_e4m3, round_to_bf16

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 128
TINY = np.float32(2.0**-120)


def dequantize_packed(
    packed: NDArray[np.int32],
    scales: NDArray[np.float32],
    *,
    bits: int,
    columns: int,
    zero_points: NDArray[np.int32] | None = None,
    groups: NDArray[np.int32] | None = None,
) -> NDArray[np.float32]:
    """Values of a run of rows.

    Args:
        packed: [rows, words].
        scales: of the same rows, [rows, groups].
        bits: 1 to 8.
        columns: elements of a row.
        zero_points: of the same rows, unpacked and signed, [rows, groups]; ``None``: zero.
        groups: the group of each column, where they are not in order.

    Raises:
        ValueError: the shapes do not belong together.
    """
    numbers = unpack(packed, bits, columns).astype(np.float32)
    numbers -= np.float32(1 << (bits - 1))
    if groups is None and columns % scales.shape[1] == 0:
        shaped = numbers.reshape(len(numbers), scales.shape[1], -1)
        if zero_points is not None:
            shaped -= zero_points.astype(np.float32)[:, :, None]
        shaped *= scales[:, :, None]
        return numbers
    if groups is None:
        raise ValueError(f"{scales.shape[1]} groups do not divide {columns} columns")
    if groups.size != columns or groups.min() < 0 or groups.max() >= scales.shape[1]:
        raise ValueError(f"columns of groups beyond {scales.shape[1]}")
    if zero_points is not None:
        numbers -= zero_points.astype(np.float32)[:, groups]
    numbers *= scales[:, groups]
    return numbers


def unpack_zero_points(packed: NDArray[np.int32], bits: int, rows: int) -> NDArray[np.int32]:
    """Signed zero points [rows, groups] of ``weight_zero_point``, packed along rows."""
    numbers = unpack(np.ascontiguousarray(packed.T), bits, rows).T.astype(np.int32)
    return numbers - np.int32(1 << (bits - 1))


def quantize_packed(
    values: NDArray[np.float32], bits: int = 4, group: int = GROUP
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Packed numbers and scales that bf16 has exactly; symmetric, the range as llm-compressor's.

    Raises:
        ValueError: rows are no multiple of ``group``.
    """
    rows, columns = values.shape
    if columns % group:
        raise ValueError(f"rows of {columns} are no multiple of {group}")
    half = np.float32(1 << (bits - 1))
    shaped = values.reshape(rows, -1, group)
    scales = np.abs(shaped).max(axis=2) / (half - np.float32(0.5))
    scales = np.maximum(round_to_bf16(scales), TINY)
    numbers = np.rint(shaped / scales[:, :, None])
    np.clip(numbers, -half, half - 1, out=numbers)
    numbers += half
    packed = pack(numbers.astype(np.uint8).reshape(rows, columns), bits)
    return packed.view(np.int32), scales


def dequantize_int8(weight: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of rows with their scales [rows, 1] (or one for all)."""
    return weight.astype(np.float32) * scales


def quantize_int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Numbers and scales [rows, 1] that bf16 has exactly."""
    scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(127.5)
    scales = np.maximum(round_to_bf16(scales), TINY)
    return np.clip(np.rint(values / scales), -128, 127).astype(np.int8), scales


def dequantize_fp8(weight: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values of rows with their scales [rows, 1] (or one for all)."""
    values = e4m3_to_f32(weight)
    values *= scales
    return values


def quantize_fp8(values: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Patterns and scales [rows, 1] that bf16 has exactly."""
    scales = np.abs(values).max(axis=1, keepdims=True) / np.float32(E4M3_MAX)
    scales = np.maximum(round_to_bf16(scales), TINY)
    return f32_to_e4m3(np.divide(values, scales, dtype=np.float32)), scales


# ----------------------------------------------------------------------------------------- config


def config(kind: str, ignore: list[str]) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``.

    Args:
        kind: ``w4a16``, ``w8a8`` or ``fp8-channel``.
        ignore: modules that stay as they are.
    """
    activations: dict[str, Any] | None
    if kind == "w4a16":
        name = "pack-quantized"
        weights = _arguments(4, "int", "group", group_size=GROUP)
        activations = None
    else:
        number = "int" if kind == "w8a8" else "float"
        name = f"{number}-quantized"
        weights = _arguments(8, number, "channel")
        activations = _arguments(8, number, "token", dynamic=True)
    return {
        "config_groups": {
            "group_0": {
                "format": name,
                "input_activations": activations,
                "output_activations": None,
                "targets": ["Linear"],
                "weights": weights,
            }
        },
        "format": name,
        "global_compression_ratio": None,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def _arguments(
    bits: int, number: str, strategy: str, *, group_size: int | None = None, dynamic: bool = False
) -> dict[str, Any]:
    return {
        "actorder": None,
        "block_structure": None,
        "dynamic": dynamic,
        "group_size": group_size,
        "num_bits": bits,
        "observer": None if dynamic else "minmax",
        "observer_kwargs": {},
        "strategy": strategy,
        "symmetric": True,
        "type": number,
    }
