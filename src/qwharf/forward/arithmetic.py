"""What a Qwen3 layer computes, on plain arrays of float32.

Shapes: a chunk of T tokens is [T, hidden]; its heads are [T, heads, head_dim]. Source of the
operations: transformers ``models/qwen3``, ``models/qwen3_moe`` and ``modeling_rope_utils.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qwharf.types import Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

YARN_BETA_FAST, YARN_BETA_SLOW = 32.0, 1.0
QUERY_ROWS = 512
"""Queries whose scores are held at a time."""


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """Each row of the last dimension scaled to a mean square of one, times ``weight``."""
    mean = np.einsum("...i,...i->...", x, x)[..., None] / np.float32(x.shape[-1])
    normed: F32 = x * (1 / np.sqrt(mean + np.float32(eps)))
    normed *= weight
    return normed


def rotation(arch: Architecture, tokens: int) -> tuple[F32, F32]:
    """Cosines and sines, [T, head_dim / 2], of the first ``tokens`` positions."""
    half = arch.head_dim // 2
    frequency = arch.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    scale = 1.0
    if arch.yarn_factor is not None:
        frequency, scale = _stretched(arch, frequency, arch.yarn_factor)
    angle = np.arange(tokens, dtype=np.float64)[:, None] * frequency
    return (
        (np.cos(angle) * scale).astype(np.float32),
        (np.sin(angle) * scale).astype(np.float32),
    )


def _stretched(
    arch: Architecture, frequency: NDArray[np.float64], factor: float
) -> tuple[NDArray[np.float64], float]:
    """YaRN: slow frequencies are divided by ``factor``, fast ones stay, those between blend."""
    trained = arch.yarn_original_context_tokens or arch.max_position_embeddings

    def at(turns: float) -> float:
        """The dimension that makes so many turns within the trained context."""
        return (
            arch.head_dim
            * math.log(trained / (turns * 2 * math.pi))
            / (2 * math.log(arch.rope_theta))
        )

    low = max(math.floor(at(YARN_BETA_FAST)), 0)
    high = min(math.ceil(at(YARN_BETA_SLOW)), arch.head_dim - 1)
    ramp = np.clip((np.arange(len(frequency)) - low) / max(high - low, 0.001), 0, 1)
    return frequency / factor * ramp + frequency * (1 - ramp), 0.1 * math.log(factor) + 1


def rotate(heads: F32, cosines: F32, sines: F32) -> F32:
    """Turn each pair (i, i + head_dim / 2) by its position's angle."""
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = cosines[:, None], sines[:, None]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)


def attention(queries: F32, keys: F32, values: F32) -> F32:
    """Causal attention; several query heads share a key-value head. [T, heads x head_dim]."""
    tokens, heads, dim = queries.shape
    group = heads // keys.shape[1]
    out = np.empty((tokens, heads, dim), np.float32)
    factor = np.float32(1 / math.sqrt(dim))
    for first in range(0, tokens, QUERY_ROWS):
        last = min(first + QUERY_ROWS, tokens)
        later = np.triu(np.full((last - first, last), -np.inf, np.float32), first + 1)
        for shared in range(keys.shape[1]):
            mine = slice(shared * group, (shared + 1) * group)
            scores = queries[first:last, mine].swapaxes(0, 1) @ keys[:last, shared].T
            scores *= factor
            scores += later
            made = softmax(scores) @ values[:last, shared]
            out[first:last, mine] = made.swapaxes(0, 1)
    return out.reshape(tokens, heads * dim)


def softmax(scores: F32) -> F32:
    """Along the last dimension; ``scores`` is overwritten."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def gated(gate: F32, up: F32) -> F32:
    """``silu(gate) * up``."""
    with np.errstate(over="ignore"):  # exp of a large number: the quotient is 0, as it should be
        gate = gate / (1 + np.exp(-gate))
    return gate * up


def route(scores: F32, count: int) -> tuple[NDArray[np.intp], F32]:
    """The ``count`` best experts of each token and their shares, which add up to one: [T, count].

    Args:
        scores: the router's, [T, experts]; overwritten.
        count: experts per token.
    """
    shares = softmax(scores)
    best = np.argsort(-shares, axis=-1, kind="stable")[:, :count]
    chosen = np.take_along_axis(shares, best, axis=-1)
    return best, chosen / chosen.sum(axis=-1, keepdims=True)
