"""Divergence, agreement and perplexity, against what they are by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qwharf.fidelity import predictions
from qwharf.fidelity.predictions import divergence, log_softmax, measure

CHUNKS = [[0, 1, 2, 3], [3, 1]]


def logits(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def random(seed: int, scale: float = 3.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, scale, (len(c), 5)).astype(np.float32) for c in CHUNKS]


def test_a_model_is_not_far_from_itself() -> None:
    found = measure(CHUNKS, random(1), random(1), 5)
    assert found.divergences.tolist() == [0.0] * 4
    assert found.same_top_1 == 1
    assert found.perplexity_a == found.perplexity_b


def test_by_hand() -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    a, b = (logits([math.log(x) for x in row], [0, 0, 0]) for row in (p, q))
    found = measure([[0, 2]], [a], [b], 3)
    assert found.divergences[0] == pytest.approx(0.25 * math.log(2))
    assert found.same_top_1 == 0
    assert found.perplexity_a == pytest.approx(4)
    assert found.perplexity_b == pytest.approx(2)


@pytest.mark.parametrize("rows", [1, 5, 1 << 20])
def test_rows_at_a_time_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(CHUNKS, random(1), random(2), 5)
    monkeypatch.setattr(predictions, "ROW_ELEMENTS", rows)
    parts = measure(CHUNKS, random(1), random(2), 5)
    assert parts.divergences.tolist() == whole.divergences.tolist()
    assert parts.perplexity_b == pytest.approx(whole.perplexity_b)


def test_padding_of_one_side_is_left_out() -> None:
    wide = [np.pad(x, ((0, 0), (0, 3)), constant_values=50) for x in random(1)]
    assert measure(CHUNKS, wide, random(1), 5).divergences.max() == 0


def test_streams_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measure(CHUNKS, random(1), random(1)[:1], 5)


def test_impossible_tokens_leave_a_number() -> None:
    sure = logits([0, 1e6, 0], [0, 0, 0])
    found = measure([[0, 2]], [sure], [sure], 3)
    assert math.isfinite(found.perplexity_a)
    assert found.quantile(0.99) == 0


ROWS = arrays(np.float32, (3, 4), elements=st.floats(-50, 50, width=32))


@given(ROWS, ROWS)
def test_divergence_is_never_negative(a: np.ndarray, b: np.ndarray) -> None:
    p, q = log_softmax(a), log_softmax(b)
    assert np.exp(p).sum(axis=1) == pytest.approx(np.ones(3))
    assert (divergence(p, q) >= 0).all()
    assert divergence(p, p).tolist() == [0.0] * 3
