"""The operations, against slow and obvious versions of themselves in double precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qwharf.forward import arithmetic
from qwharf.forward.arithmetic import attention, gated, rms_norm, rotate, rotation, route
from qwharf.testing import TINY

RNG = np.random.default_rng(7)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def test_a_normed_row_has_a_mean_square_of_one() -> None:
    x, weight = 100 * normal(5, 64), normal(64)
    made = rms_norm(x, np.ones(64, np.float32), 1e-6)
    assert np.allclose(np.square(made).mean(axis=-1), 1, atol=1e-4)
    assert np.allclose(rms_norm(x, weight, 1e-6), made * weight)
    assert np.all(rms_norm(np.zeros((1, 64), np.float32), weight, 1e-6) == 0)


@pytest.mark.parametrize("block", [1, 3, 512])
def test_attention(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(arithmetic, "QUERY_ROWS", block)
    tokens, heads, shared, dim = 7, 6, 2, 8
    q, k, v = normal(tokens, heads, dim), normal(tokens, shared, dim), normal(tokens, shared, dim)
    made = attention(q, k, v).reshape(tokens, heads, dim)
    for t in range(tokens):
        for h in range(heads):
            g = h // (heads // shared)
            scores = [float(q[t, h] @ k[s, g]) / math.sqrt(dim) for s in range(t + 1)]
            weights = np.exp(np.array(scores) - max(scores))
            wanted = (weights / weights.sum()) @ v[: t + 1, g]
            assert np.allclose(made[t, h], wanted, atol=1e-5)


def test_rotation_turns_pairs_by_position_and_frequency() -> None:
    cosines, sines = rotation(TINY, 50)
    heads = normal(50, 3, TINY.head_dim)
    turned = rotate(heads, cosines, sines)
    half = TINY.head_dim // 2
    pairs = heads[..., :half] + 1j * heads[..., half:]
    for position in (0, 1, 49):
        angle = position * TINY.rope_theta ** (-np.arange(half) / half)
        wanted = pairs[position] * np.exp(1j * angle)
        assert np.allclose(turned[position, :, :half], wanted.real, atol=1e-5)
        assert np.allclose(turned[position, :, half:], wanted.imag, atol=1e-5)


def test_scores_depend_on_distance_alone() -> None:
    cosines, sines = rotation(TINY, 40)
    q, k = normal(1, 1, TINY.head_dim), normal(1, 1, TINY.head_dim)

    def score(i: int, j: int) -> float:
        a = rotate(q, cosines[i : i + 1], sines[i : i + 1])
        b = rotate(k, cosines[j : j + 1], sines[j : j + 1])
        return float((a * b).sum())

    assert score(5, 2) == pytest.approx(score(39, 36), abs=1e-4)


def test_yarn_divides_slow_frequencies_and_leaves_fast_ones() -> None:
    """The numbers of transformers' ``_compute_yarn_parameters`` for Qwen3 (head_dim 128, x4)."""
    arch = replace(
        TINY, head_dim=128, rope_theta=1e6, yarn_factor=4.0, yarn_original_context_tokens=32768
    )
    plain = replace(arch, yarn_factor=None)
    scale = 0.1 * math.log(4) + 1
    cosines, sines = rotation(arch, 2)
    angles = np.arctan2(sines[1], cosines[1])
    own = np.arctan2(rotation(plain, 2)[1][1], rotation(plain, 2)[0][1])
    assert np.allclose(np.hypot(cosines[1], sines[1]), scale, atol=1e-6)
    low, high = 23, 40  # floor and ceiling of the dimensions of 32 turns and of one
    assert np.allclose(angles[: low + 1], own[: low + 1], rtol=1e-5)
    assert np.allclose(angles[high:], own[high:] / 4, rtol=1e-4)
    between = angles[low + 1 : high] / own[low + 1 : high]
    assert np.all(np.diff(between) < 0) and 0.25 < between[-1] < between[0] < 1


def test_silu_is_quiet_at_both_ends() -> None:
    gate = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0], np.float32)
    made = gated(gate, np.ones(5, np.float32))
    assert np.allclose(made, [0, -0.26894143, 0, 0.7310586, 1000])


def test_the_best_experts_share_one() -> None:
    scores = normal(20, 9)
    best, shares = route(scores.copy(), 3)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-6)
    for row, chosen, part in zip(scores, best, shares, strict=True):
        assert set(chosen) == set(np.argsort(row)[-3:])
        assert np.allclose(part, np.exp(row[chosen]) / np.exp(row[chosen]).sum(), atol=1e-6)
