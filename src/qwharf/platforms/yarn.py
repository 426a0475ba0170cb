"""Contexts beyond the trained one: YaRN, by the least factor that will do."""

from __future__ import annotations

from qwharf.types import Architecture

QWEN3_POSITIONS, QWEN3_TRAINED = 40_960, 32_768
"""The hybrid models' files promise 40,960 tokens: the 32,768 they were trained on and room for an
answer. YaRN is reckoned from the latter."""
YARN_FACTORS = (2, 4)
"""Powers of two, so that the engine's own reckoning of the context is exact."""


def trained_context(arch: Architecture) -> int:
    """Tokens of context that the weights were trained on, from which YaRN stretches."""
    positions = arch.max_position_embeddings
    return QWEN3_TRAINED if positions == QWEN3_POSITIONS else positions


def yarn_factor(arch: Architecture, context_tokens: int) -> int | None:
    """By how much the context must be stretched for ``context_tokens``; ``None``: not at all.

    The least factor that will do, since any costs a little quality in short contexts. Files with
    YaRN of their own keep it.
    """
    if arch.yarn_factor is not None or context_tokens <= arch.max_position_embeddings:
        return None
    trained = trained_context(arch)
    return next((f for f in YARN_FACTORS if trained * f >= context_tokens), YARN_FACTORS[-1])


def longest_context(arch: Architecture) -> int:
    """The most tokens of context that the engine can be told to serve."""
    most = arch.max_position_embeddings
    if arch.yarn_factor is None:
        return max(most, trained_context(arch) * YARN_FACTORS[-1])
    if arch.yarn_original_context_tokens is not None:
        return max(most, int(arch.yarn_original_context_tokens * arch.yarn_factor))
    return most
