"""Bytes of the KV cache.

Per token: 2 (keys and values) x layers x KV heads x head_dim x bytes of the type. A block of 32
numbers takes 34 bytes in q8_0 and 18 in q4_0.
"""

from __future__ import annotations

from fractions import Fraction

from qwharf.types import Architecture, KvCacheType

BYTES: dict[KvCacheType, Fraction] = {
    "f16": Fraction(2),
    "bf16": Fraction(2),
    "fp8": Fraction(1),
    "q8_0": Fraction(34, 32),
    "q4_0": Fraction(18, 32),
}
"""Bytes per number."""

PAD_TOKENS = 256
"""llama.cpp rounds a context up to this."""


def padded_context(context_tokens: int) -> int:
    """``context_tokens`` rounded up to a multiple of 256."""
    return -(-context_tokens // PAD_TOKENS) * PAD_TOKENS


def kv_bytes_per_token(arch: Architecture, kv_cache_type: KvCacheType = "f16") -> int:
    """Bytes per token of context, over all layers."""
    numbers = 2 * arch.num_hidden_layers * arch.num_key_value_heads * arch.head_dim
    each = BYTES[kv_cache_type]
    return numbers * each.numerator // each.denominator


def kv_bytes(
    arch: Architecture,
    context_tokens: int,
    kv_cache_type: KvCacheType = "f16",
    parallel: int = 1,
) -> int:
    """Bytes of the whole cache: ``parallel`` requests of ``context_tokens`` each, padded."""
    return kv_bytes_per_token(arch, kv_cache_type) * padded_context(context_tokens) * parallel
