"""AWQ in the ``gemm`` layout: four bits with zero points, packed along the output.

A matrix [out, in] is stored transposed: ``qweight`` int32 [in, out/8] and ``qzeros`` int32
[in/group, out/8], eight outputs in a word in the order 0 2 4 6 1 3 5 7 from the lowest nibble up,
and ``scales`` float16 [in/group, out]. A weight is (number - zero point) x scale. Source: AutoAWQ
``awq/modules/linear/gemm.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.weights.bits import pack, unpack
from qwharf.formats.weights.floats import round_to_f16

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = 128
ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])
"""Which output lies at which nibble of a word."""
BACK = np.argsort(ORDER)
MIDDLE = 8
"""The zero point where none is stored."""
SMALLEST = np.float32(1e-5)
"""Least spread of a group, so that scales of zeros stay normal float16 numbers."""


def _ordered(words: NDArray[np.int32], columns: int) -> NDArray[np.uint8]:
    nibbles = unpack(words, 4, columns)
    return nibbles.reshape(len(words), -1, 8)[:, :, BACK].reshape(len(words), columns)


def dequantize(
    qweight: NDArray[np.int32], qzeros: NDArray[np.int32] | None, scales: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Values [out, in] of a run of outputs: columns of all three arrays.

    Args:
        qweight: [in, outputs / 8].
        qzeros: [groups, outputs / 8]; ``None``: eight, the middle.
        scales: [groups, outputs].

    Raises:
        ValueError: the shapes do not belong together.
    """
    groups, outputs = scales.shape
    if len(qweight) % groups:
        raise ValueError(f"{groups} groups do not divide {len(qweight)} inputs")
    numbers = _ordered(qweight, outputs).astype(np.float32).reshape(groups, -1, outputs)
    zeros = np.float32(MIDDLE) if qzeros is None else _ordered(qzeros, outputs).astype(np.float32)
    numbers -= zeros if qzeros is None else np.asarray(zeros)[:, None, :]
    numbers *= scales[:, None, :]
    return np.ascontiguousarray(numbers.reshape(-1, outputs).T)


def quantize(
    values: NDArray[np.float32], group: int = GROUP
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]:
    """``qweight``, ``qzeros`` and ``scales`` of rows [outputs, in]; rounded to nearest.

    Raises:
        ValueError: rows are no multiple of ``group``, or outputs none of eight.
    """
    outputs, inputs = values.shape
    if inputs % group or outputs % 8:
        raise ValueError(f"{outputs} x {inputs} does not divide into groups of {group} and words")
    shaped = values.reshape(outputs, -1, group)
    # Zero is always within the range, so that it is a number of its own.
    low = np.minimum(shaped.min(axis=2), 0)
    high = np.maximum(shaped.max(axis=2), 0)
    scales = round_to_f16(np.maximum(high - low, SMALLEST) / np.float32(15))
    zeros = np.clip(np.rint(-low / scales), 0, 15)
    numbers = np.rint(shaped / scales[:, :, None])
    numbers += zeros[:, :, None]
    np.clip(numbers, 0, 15, out=numbers)
    qweight = _words(numbers.astype(np.uint8).reshape(outputs, inputs).T)
    return qweight, _words(zeros.astype(np.uint8).T), scales.T.astype(np.float16)


def from_numbers(
    numbers: NDArray[np.uint8], zeros: NDArray[np.uint8], scales: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float16]]:
    """``qweight``, ``qzeros`` and ``scales`` of numbers that are there already.

    Args:
        numbers: [outputs, in], 0 to 15.
        zeros: [outputs, groups], 0 to 15.
        scales: [outputs, groups].
    """
    return _words(numbers.T), _words(zeros.T), scales.T.astype(np.float16)


def _words(numbers: NDArray[np.uint8]) -> NDArray[np.int32]:
    rows = len(numbers)
    ordered = numbers.reshape(rows, -1, 8)[:, :, ORDER].reshape(rows, -1)
    return pack(ordered, 4).view(np.int32)


def config(modules_to_not_convert: list[str] | None) -> dict[str, Any]:
    """``quantization_config`` of ``config.json``."""
    return {
        "backend": "autoawq",
        "bits": 4,
        "do_fuse": False,
        "exllama_config": None,
        "fuse_max_seq_len": None,
        "group_size": GROUP,
        "modules_to_fuse": None,
        "modules_to_not_convert": modules_to_not_convert,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
