"""Narrow floats as bit patterns: bfloat16 and 8-bit e4m3, which numpy does not have.

Everything rounds to nearest, ties to even. e4m3 is the ``fn`` kind of machine learning (OCP 8-bit
floating point): no infinities, 0x7F and 0xFF are NaN, the largest value is 448.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

E4M3_MAX = 448.0


def bf16_to_f32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen; exact, for the bits are the upper halves of the float32 ones."""
    wide = np.empty(bits.shape, np.uint32)
    np.left_shift(bits, np.uint32(16), out=wide, dtype=np.uint32)
    return wide.view(np.float32)


def f32_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round; NaN stays NaN, and what is beyond the largest becomes infinite."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    upper = bits >> np.uint32(16)
    # The lowest kept bit carries a tie upwards exactly when that makes the result even.
    rounded = (bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if nan.any():
        rounded = np.where(nan, upper | np.uint32(0x40), rounded)
    return rounded.astype(np.uint16)


def round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest values that bfloat16 has."""
    return bf16_to_f32(f32_to_bf16(values))


def round_to_f16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest values that float16 has."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def e4m3_to_f32(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Widen; exact."""
    return _e4m3_values()[bits]


def f32_to_e4m3(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round; what is beyond the largest, infinities too, becomes the largest; NaN stays NaN.

    Sixteen bits decide: the upper half of the float32, with its last bit set if anything below is.
    That bit keeps what lies beyond a tie apart from the tie, so one table gives the right rounding.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    index = (bits >> np.uint32(16)).astype(np.uint16)
    index |= (bits & np.uint32(0xFFFF)) != 0
    return _e4m3_table()[index]


@cache
def _e4m3_values() -> NDArray[np.float32]:
    """The value of each of the 256 patterns."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    values = np.where(
        exponent == 0, np.ldexp(mantissa / 8, -6), np.ldexp(1 + mantissa / 8, exponent - 7)
    )
    values[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes & 0x80, -values, values).astype(np.float32)


@cache
def _e4m3_table() -> NDArray[np.uint8]:
    """The nearest pattern for each upper half of a float32."""
    halves = np.arange(65536, dtype=np.uint32)
    size = np.minimum(halves & np.uint32(0x7FFF), np.uint32(0x7F7F))  # no infinity, no NaN
    values = (size << np.uint32(16)).view(np.float32).astype(np.float64)
    values = np.minimum(values, E4M3_MAX)
    finite = _e4m3_values()[:0x7F].astype(np.float64)
    above = np.minimum(np.searchsorted(finite, values), 0x7E)
    below = np.maximum(above - 1, 0)
    up, down = finite[above] - values, values - finite[below]
    even = np.where(above & 1, below, above)
    code = np.where(up < down, above, np.where(up > down, below, even))
    code = np.where((halves & 0x7FFF) > 0x7F80, 0x7F, code)
    return np.asarray(code | (halves >> np.uint32(8) & np.uint32(0x80)), dtype=np.uint8)


EXPONENT: dict[str, tuple[Any, int]] = {
    "BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000),
}  # fmt: skip
"""Of each dtype the bits that are all set in what is infinite or undefined."""


def all_finite(dtype: str, stored: NDArray[Any]) -> bool:
    """Whether no element of stored floats (``BF16``, ``F16``, ``F32``) is infinite or NaN."""
    kind, exponent = EXPONENT[dtype]
    bits = np.ascontiguousarray(stored).view(kind)
    return bits.size == 0 or int((bits & kind(exponent)).max()) != exponent


# ------------------------------------------------------------------------------- stored numbers

STORED: dict[str, Any] = {
    "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F8_E4M3": np.uint8, "U8": np.uint8,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "U32": np.uint32, "I64": np.int64,
    "F64": np.float64,
}  # fmt: skip
"""The numpy type in which each dtype of a safetensors file is held; narrow floats as bits."""


def to_f32(dtype: str, stored: NDArray[Any]) -> NDArray[np.float32]:
    """The values of stored floats: ``F32``, ``F16``, ``BF16``, ``F8_E4M3``.

    Raises:
        ValueError: another dtype.
    """
    if dtype == "F32":
        return np.asarray(stored, np.float32)
    if dtype == "BF16":
        return bf16_to_f32(stored)
    if dtype == "F16":
        return stored.astype(np.float32)
    if dtype == "F8_E4M3":
        return e4m3_to_f32(stored)
    raise ValueError(f"{dtype} holds no floats that are understood")


def from_f32(dtype: str, values: NDArray[np.float32]) -> NDArray[Any]:
    """Stored floats of dtype ``F32``, ``F16``, ``BF16``; too large for ``F16`` becomes infinite.

    Raises:
        ValueError: another dtype.
    """
    if dtype == "F32":
        return np.ascontiguousarray(values, np.float32)
    if dtype == "BF16":
        return f32_to_bf16(values)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    raise ValueError(f"{dtype} is no dtype for plain weights")
