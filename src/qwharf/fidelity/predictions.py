"""What two models predict, held against each other token by token.

For each prediction, with p what A says of the next token and q what B says: the divergence
sum p (log p - log q), whether the most probable token is the same, and how likely each found the
token that came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

ROW_ELEMENTS = 1 << 22
"""Numbers worked on at a time, beside the logits themselves."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Sums over a text's predictions."""

    divergences: NDArray[np.float64]
    same_top_1: float
    perplexity_a: float
    perplexity_b: float

    def quantile(self, share: float) -> float:
        """The divergence that so large a share of the predictions do not exceed."""
        return float(np.quantile(self.divergences, share))


def measure(
    chunks: Sequence[Sequence[int]], a: Iterable[F32], b: Iterable[F32], columns: int
) -> Measured:
    """Compare two streams of logits.

    Args:
        chunks: token ids; each has two at least.
        a: per chunk, A's logits [tokens, vocabulary]; row i is about the token after the i-th.
        b: B's.
        columns: how many of the vocabulary both have.
    """
    divergences: list[NDArray[np.float64]] = []
    surprise = np.zeros(2)
    same = 0
    for chunk, of_a, of_b in zip(chunks, a, b, strict=True):
        following = np.array(chunk[1:], np.intp)
        step = max(1, ROW_ELEMENTS // columns)
        for first in range(0, len(following), step):
            rows = slice(first, min(first + step, len(following)))
            p = log_softmax(of_a[rows, :columns])
            q = log_softmax(of_b[rows, :columns])
            divergences.append(divergence(p, q))
            same += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            came = np.arange(len(p)), following[rows]
            surprise -= p[came].sum(dtype=np.float64), q[came].sum(dtype=np.float64)
    every = np.concatenate(divergences)
    mean = surprise / len(every)
    return Measured(every, same / len(every), _exp(mean[0]), _exp(mean[1]))


def log_softmax(logits: F32) -> NDArray[np.float64]:
    """Along the last axis, in float64."""
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, in nats; never below zero, where rounding would put it."""
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0))


def _exp(x: float) -> float:
    """``e ** x``, or the largest that is still a number."""
    return math.exp(min(x, 709.0))
