"""The codecs on arrays of all kinds: how near, how stable, how strict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.formats.weights import awq, bits, compressed, floats, fp8, gptq, mlx

SEEDS = st.integers(0, 2**32 - 1)
SCALES = st.sampled_from([1e-6, 1e-3, 0.02, 1.0, 300.0])


def weights(seed: int, scale: float, rows: int = 32, columns: int = 256) -> Any:
    values = np.random.default_rng(seed).normal(0, scale, (rows, columns)).astype(np.float32)
    values[seed % rows] = 0
    return values


@given(SEEDS, st.integers(1, 8), st.integers(1, 100))
def test_packing_is_undone_by_unpacking(seed: int, width: int, count: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 1 << width, (3, count)).astype(np.uint8)
    words = bits.pack(numbers, width)
    assert words.shape == (3, bits.packed_words(count, width))
    assert np.array_equal(bits.unpack(words, width, count), numbers)


def test_too_few_words_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        bits.unpack(np.zeros((2, 3), np.uint32), 4, 25)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_e4m3_takes_the_nearest(values: list[float]) -> None:
    wide = np.array(values, np.float32)
    made = floats.e4m3_to_f32(floats.f32_to_e4m3(wide)).astype(np.float64)
    every = floats.e4m3_to_f32(np.arange(127, dtype=np.uint8)).astype(np.float64)
    clipped = np.clip(wide.astype(np.float64), -448, 448)
    nearest = np.abs(np.abs(clipped)[:, None] - every[None]).min(axis=1)
    assert np.array_equal(np.abs(made - clipped), nearest)
    assert np.array_equal(np.signbit(made), np.signbit(wide))


def test_nan_stays_nan() -> None:
    nan = np.array([np.nan, -np.nan], np.float32)
    assert np.isnan(floats.e4m3_to_f32(floats.f32_to_e4m3(nan))).all()
    assert np.isnan(floats.bf16_to_f32(floats.f32_to_bf16(nan))).all()


@settings(max_examples=30, deadline=None)
@given(SEEDS, SCALES)
def test_nothing_is_far_off(seed: int, scale: float) -> None:
    """Half a step, and what rounding the scales to bf16 (2**-8) or float16 costs at the ends."""
    values = weights(seed, scale)
    wide = np.abs(values).reshape(32, 2, 128).max(axis=2).repeat(128, axis=1)
    packed, scales = compressed.quantize_packed(values)
    read = compressed.dequantize_packed(packed, scales, bits=4, columns=256)
    assert (np.abs(read - values) <= wide / 15 * 1.06).all()
    numbers, scales = compressed.quantize_int8(values)
    assert (np.abs(compressed.dequantize_int8(numbers, scales) - values) <= wide.max() / 127).all()
    codes, scales = compressed.quantize_fp8(values)
    read = compressed.dequantize_fp8(codes, scales)
    assert (np.abs(read - values) <= np.abs(values) / 16 + wide.max() / 448 / 512).all()
    codes, scales = fp8.quantize(values)
    read = fp8.dequantize(codes, scales)
    assert (np.abs(read - values) <= np.abs(values) / 16 + wide.max() / 448 / 512).all()
    qweight, qzeros, half = awq.quantize(values)
    read = awq.dequantize(qweight, qzeros, half.astype(np.float32))
    assert (np.abs(read - values) <= np.maximum(wide / 15 * 1.1, 1e-6)).all()
    for width in (4, 8):
        qweight, qzeros, half = gptq.quantize(values, width)
        index = gptq.group_index(256)
        read = gptq.dequantize(qweight, qzeros, half.astype(np.float32), index, bits=width)
        assert (np.abs(read - values) <= wide / ((1 << width) - 1) * 1.5 + 1e-6).all()
    for width in (4, 6, 8):
        words, scales, biases = mlx.quantize(values, width)
        read = mlx.dequantize(words, scales, biases, bits=width, dtype="F32")
        assert (np.abs(read - values) <= wide.max() * 2 / ((1 << width) - 1) + 2e-7).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(0, 255))
def test_a_run_of_rows_gives_what_the_whole_gives(seed: int, cut: int) -> None:
    values = weights(seed, 0.02, rows=256)
    at = cut // 32 * 32
    for make in (compressed.quantize_packed, compressed.quantize_fp8, compressed.quantize_int8):
        whole, part = make(values), make(values[at:])
        assert all(np.array_equal(w[at:], p) for w, p in zip(whole, part, strict=True))
    for make, units in ((awq.quantize, (8, 8, 1)), (lambda v: gptq.quantize(v, 4), (1, 8, 1))):
        whole, part = make(values), make(values[at:])
        for w, p, unit in zip(whole, part, units, strict=True):
            assert np.array_equal(w[:, at // unit :], p)


def test_gptq_of_version_two_and_out_of_order() -> None:
    values = weights(1, 0.02)
    qweight, qzeros, half = gptq.quantize(values, 4)
    scales, index = half.astype(np.float32), gptq.group_index(256)
    read = gptq.dequantize(qweight, qzeros, scales, index, bits=4)
    plus_one = (qzeros.view(np.uint32) + np.uint32(0x11111111)).view(np.int32)
    assert np.array_equal(
        gptq.dequantize(qweight, plus_one, scales, index, bits=4, version=2), read
    )
    order = np.random.default_rng(0).permutation(256)
    numbers = bits.unpack(np.ascontiguousarray(qweight.T), 4, 256)[:, order]
    shuffled = np.ascontiguousarray(bits.pack(numbers, 4).T).view(np.int32)
    again = gptq.dequantize(shuffled, qzeros, scales, index[order], bits=4)
    assert np.array_equal(again, read[:, order])
    with pytest.raises(ValueError, match="group"):
        gptq.dequantize(qweight, qzeros, scales, index + 1, bits=4)


def test_shapes_that_do_not_divide_are_refused() -> None:
    odd = weights(1, 0.02, columns=200)
    for make in (awq.quantize, compressed.quantize_packed, mlx_4, lambda v: gptq.quantize(v, 4)):
        with pytest.raises(ValueError, match=r"multiple|divide"):
            make(odd)


def mlx_4(values: Any) -> Any:
    return mlx.quantize(values, 4)
