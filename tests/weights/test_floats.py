"""16-bit floats: rounding, and what is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qwharf.formats.weights import floats

BITS = arrays.arrays(np.uint32, st.integers(1, 40))


@given(BITS)
def test_bf16_rounds_to_nearest_even(bits: Any) -> None:
    values = bits.view(np.float32)
    made = floats.f32_to_bf16(values)
    for value, half, raw in zip(values, made.tolist(), bits.tolist(), strict=True):
        if np.isnan(value):
            assert half & 0x7F80 == 0x7F80 and half & 0x7F and half >> 15 == raw >> 31
            continue
        low, tie = raw >> 16, raw & 0xFFFF
        assert half == low + (tie > 0x8000 or (tie == 0x8000 and low & 1))


@given(arrays.arrays(np.uint16, st.integers(0, 40)))
def test_bf16_there_and_back(halves: Any) -> None:
    wide = floats.bf16_to_f32(halves)
    back = floats.f32_to_bf16(wide)
    nan = np.isnan(wide)
    assert np.array_equal(back[~nan], halves[~nan])
    assert np.array_equal(back[nan], halves[nan] | 0x40)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_what_is_not_finite_is_seen(name: str) -> None:
    good = floats.from_f32(name, np.array([1.0, -3e4, 0.0, 1e-30], np.float32))
    assert floats.all_finite(name, good) and floats.all_finite(name, good[:0])
    for bad in (np.inf, -np.inf, np.nan):
        assert not floats.all_finite(name, floats.from_f32(name, np.array([1.0, bad], np.float32)))
