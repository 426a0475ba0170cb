"""GPTQ: four or eight bits in groups of inputs, packed along the input.

A matrix [out, in] is stored transposed: ``qweight`` int32 [in·bits/32, out], lowest bits first;
``qzeros`` int32 [groups, out·bits/32]; ``scales`` float16 [groups, out]; ``g_idx`` int32 [in], the
group of each input (with "act-order" in no order). A weight is (number - zero point) x scale.
Version 1 (``checkpoint_format`` gptq) stores zero points minus one, version 2 as they are. Source:
GPTQModel ``nn_modules/qlinear`` and ``utils/model.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.weights.bits import pack, unpack
from qwharf.formats.weights.floats import round_to_f16

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 128
SMALLEST = np.float32(1e-7)
"""Least scale of a group of zeros: float16 has it, if only just."""


def dequantize(
    qweight: NDArray[np.int32],
    qzeros: NDArray[np.int32],
    scales: NDArray[np.float32],
    groups: NDArray[np.int32],
    *,
    bits: int,
    version: int = 1,
) -> NDArray[np.float32]:
    """Values [out, in] of a run of outputs: columns of the first three arrays.

    Args:
        qweight: [in * bits / 32, outputs].
        qzeros: [groups, outputs * bits / 32].
        scales: [groups, outputs].
        groups: ``g_idx``; negative numbers count from the end, as torch indexes.
        bits: 4 or 8.
        version: 1 or 2, by which zero points are read.

    Raises:
        ValueError: the shapes do not belong together, or a group does not exist.
    """
    count, outputs = scales.shape
    if groups.size and (groups.min() < -count or groups.max() >= count):
        raise ValueError(f"an input of group {int(np.abs(groups).max())} of {count}")
    inputs = groups.size
    numbers = unpack(np.ascontiguousarray(qweight.T), bits, inputs).astype(np.float32)
    zeros = unpack(qzeros, bits, outputs)
    if version == 1:
        # In as many bits: what was zero is stored as the largest number.
        zeros = (zeros + np.uint8(1)) & np.uint8((1 << bits) - 1)
    by_output = np.ascontiguousarray(zeros.T).astype(np.float32)
    scale = np.ascontiguousarray(scales.T)
    if inputs % count == 0 and np.array_equal(groups, np.arange(inputs) // (inputs // count)):
        shaped = numbers.reshape(outputs, count, -1)
        shaped -= by_output[:, :, None]
        shaped *= scale[:, :, None]
        return numbers
    numbers -= by_output[:, groups]
    numbers *= scale[:, groups]
    return numbers


def quantize(
    values: NDArray[np.float32], bits: int, group: int = GROUP
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]:
    """``qweight``, ``qzeros`` (version 1) and ``scales`` of rows [outputs, in]; symmetric.

    Raises:
        ValueError: rows are no multiple of ``group``, or outputs do not fill words.
    """
    outputs, inputs = values.shape
    if inputs % group or outputs * bits % 32:
        raise ValueError(f"{outputs} x {inputs} does not divide into groups of {group} and words")
    largest = (1 << bits) - 1
    middle = (largest + 1) // 2
    shaped = values.reshape(outputs, -1, group)
    scales = np.abs(shaped).max(axis=2) * np.float32(2 / largest)
    scales = round_to_f16(np.maximum(scales, SMALLEST))
    numbers = np.rint(shaped / scales[:, :, None])
    numbers += np.float32(middle)
    np.clip(numbers, 0, largest, out=numbers)
    words = pack(numbers.astype(np.uint8).reshape(outputs, inputs), bits)
    zeros = np.full((inputs // group, outputs), middle - 1, np.uint8)
    return (
        np.ascontiguousarray(words.T).view(np.int32),
        pack(zeros, bits).view(np.int32),
        scales.T.astype(np.float16),
    )


def from_packed(
    packed: NDArray[np.int32], scales: NDArray[np.float32], bits: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]:
    """``qweight``, ``qzeros`` (version 1) and ``scales`` of numbers that are there already.

    Args:
        packed: [outputs, in * bits / 32], lowest bits first, the middle standing for zero, as
            compressed-tensors packs symmetric ones: the same words.
        scales: [outputs, groups].
        bits: 4 or 8.
    """
    outputs, groups = scales.shape
    zeros = np.full((groups, outputs), (1 << (bits - 1)) - 1, np.uint8)
    return (
        np.ascontiguousarray(packed.T),
        pack(zeros, bits).view(np.int32),
        scales.T.astype(np.float16),
    )


def group_index(inputs: int, group: int = GROUP) -> NDArray[np.int32]:
    """``g_idx`` of groups in order."""
    return (np.arange(inputs) // group).astype(np.int32)


def config(bits: int, skipped: list[str]) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``.

    Args:
        bits: 4 or 8.
        skipped: regular expressions of modules that stay as they are.
    """
    made: dict[str, Any] = {
        "bits": bits,
        "checkpoint_format": "gptq",
        "damp_percent": 0.01,
        "desc_act": False,
        "group_size": GROUP,
        "lm_head": False,
        "model_file_base_name": None,
        "model_name_or_path": None,
        "quant_method": "gptq",
        "static_groups": False,
        "sym": True,
        "true_sequential": True,
    }
    if skipped:
        made["dynamic"] = {f"-:{pattern}": {} for pattern in skipped}
    return made
