"""What running it takes, at a few contexts: the file's own weights, KV cache, buffers."""

from __future__ import annotations

from qwharf.inspection.report import Context, Need
from qwharf.memory import kv_bytes
from qwharf.memory.kv_cache import padded_context
from qwharf.memory.llama_cpp import PROCESS_BYTES, compute_buffer
from qwharf.types import Architecture

SMALL_TOKENS = 4_096


def needs_of(
    arch: Architecture, context: Context, weight_bytes: int, *, llama_cpp: bool
) -> tuple[Need, ...]:
    """At 4,096 tokens, the native and the largest context, of one request.

    Args:
        arch: the model.
        context: its limits.
        weight_bytes: what an engine loads.
        llama_cpp: whether llama.cpp runs it, whose buffers are known.
    """
    native, most = context.native_tokens, context.max_tokens
    wanted = sorted({min(SMALL_TOKENS, native), native, max(native, most)})
    return tuple(_need(arch, tokens, weight_bytes, llama_cpp=llama_cpp) for tokens in wanted)


def _need(arch: Architecture, tokens: int, weight_bytes: int, *, llama_cpp: bool) -> Need:
    cache = kv_bytes(arch, tokens)
    buffers = _buffers(arch, tokens) if llama_cpp else None
    return Need(
        context_tokens=tokens,
        weight_bytes=weight_bytes,
        kv_bytes=cache,
        buffer_bytes=buffers,
        total_bytes=weight_bytes + cache + (buffers or 0),
    )


def _buffers(arch: Architecture, tokens: int) -> int:
    """Compute buffer, one row of logits and the process, as :mod:`qwharf.memory.llama_cpp` says."""
    compute, _ = compute_buffer(arch, padded_context(tokens))
    return compute + arch.vocab_size * 4 + PROCESS_BYTES
