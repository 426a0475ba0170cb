"""The memory of llama.cpp's server, line by line.

The formulas were derived from what the server (b11549) reports while loading Qwen3 files whose
widths, heads, layers, experts, contexts and slots were varied one by one, with flash attention on
(its default here) and at most one output row per slot:

compute buffer
    The graph's allocator reuses memory, so only its fullest moment counts, and that is the
    feed-forward of one layer: three tensors of the inner width beside five of the hidden width,
    for every token of a micro-batch, in f32. In a mixture of experts the inner width is that of
    the active experts together, and their outputs are added where they do not fit into freed
    space. Beside it stands the attention mask: micro-batch x context of one slot, in f16.
    With very many slots the logits of all of them may be the fullest moment instead.
output buffer
    One row of logits per slot, f32.
repacked weights
    On x86 with AVX2 the tensors of some types are rewritten into another layout when loaded, all
    but the embedding. Read without mmap the rewritten ones replace the file's bytes; with mmap
    they come on top of them. On other processors other types are rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from qwharf.memory.kv_cache import kv_bytes_per_token, padded_context
from qwharf.memory.weights import repacked_bytes, weights
from qwharf.types import Architecture, Format, KvCacheType, MemoryLine

MIB = 2**20
MICRO_BATCH = 512
"""Tokens that go through the graph at once (``--ubatch-size``)."""

PROCESS_BYTES = 75 * MIB
"""The engine's child process without any model buffer: Python, the engine's library, vocabulary,
HTTP server. Measured: 43 MiB of llama.cpp's and 32 MiB of Python's."""

CUDA_CONTEXT_BYTES = 512 * MIB
"""An allowance for what a CUDA or ROCm context and its kernels' workspace take on each GPU; they
are not in any of the engine's own figures. Not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What runs where."""

    gpu_layers: int = 0
    """How many layers are on the GPU, the last ones first; one more than there are layers means
    the output matrix too."""
    cpu_moe_layers: int = 0
    """In how many layers, the first ones first, the experts stay on the host."""


@lru_cache(maxsize=8192)  # planning asks for the same layout on every platform that runs GGUF
def llama_cpp_lines(
    arch: Architecture,
    format: Format,
    *,
    context_tokens: int,
    parallel: int = 1,
    kv_cache_type: KvCacheType = "f16",
    placement: Placement | None = None,
    mmap: bool = False,
    micro_batch: int = MICRO_BATCH,
    unified_memory: bool = False,
    weight_bytes: int | None = None,
) -> tuple[MemoryLine, ...]:
    """Every part of the memory of one server.

    Args:
        arch: the model.
        format: its GGUF quantisation.
        context_tokens: of each request.
        parallel: requests served at once.
        kv_cache_type: of keys and values.
        placement: what is on the GPU; default: nothing.
        mmap: whether the file is mapped rather than read; see above on repacked weights.
        micro_batch: tokens per pass.
        unified_memory: the GPU's memory is the host's (Apple): nothing is told apart.
        weight_bytes: the tensors' bytes from the file's own header, where there is one; the
            mixing rules' sum is replaced by it when nothing is on a GPU.
    """
    at = placement or Placement()
    context = padded_context(context_tokens)
    split = _split_weights(arch, format, at)
    host_weights = split.host if at.gpu_layers or weight_bytes is None else weight_bytes
    layers = arch.num_hidden_layers
    on_gpu = min(at.gpu_layers, layers)
    per_layer = kv_bytes_per_token(arch, kv_cache_type) // layers * context * parallel
    buffer, how = compute_buffer(arch, context, parallel, micro_batch)
    lines = [
        MemoryLine(
            label="weights",
            size_bytes=host_weights,
            formula=f"tensors of {format}" + (f", {split.host_what}" if at.gpu_layers else ""),
        )
    ]
    repacked = repacked_bytes(arch, format) if mmap and not at.gpu_layers else 0
    if repacked:
        lines.append(
            MemoryLine(
                label="repacked weights",
                size_bytes=repacked,
                formula="a second layout of the 4-bit tensors, beside the mapped file",
            )
        )
    if on_gpu < layers:
        lines.append(
            MemoryLine(
                label="KV cache",
                size_bytes=per_layer * (layers - on_gpu),
                formula=_kv_formula(arch, layers - on_gpu, context, kv_cache_type, parallel),
            )
        )
    lines += [
        MemoryLine(label="compute buffer", size_bytes=buffer, formula=how),
        MemoryLine(
            label="output buffer",
            size_bytes=parallel * arch.vocab_size * 4,
            formula=f"{parallel} x {arch.vocab_size:,} logits x 4 bytes",
        ),
        MemoryLine(
            label="process",
            size_bytes=PROCESS_BYTES,
            formula="the engine without a model, as measured",
        ),
    ]
    if at.gpu_layers:
        where = "host" if unified_memory else "gpu"
        lines.append(
            MemoryLine(
                label="weights on the GPU",
                size_bytes=split.gpu,
                formula=f"{split.gpu_what} of {format}",
                where=where,  # type: ignore[arg-type]
            )
        )
        if on_gpu:
            lines.append(
                MemoryLine(
                    label="KV cache on the GPU",
                    size_bytes=per_layer * on_gpu,
                    formula=_kv_formula(arch, on_gpu, context, kv_cache_type, parallel),
                    where=where,  # type: ignore[arg-type]
                )
            )
        lines.append(
            MemoryLine(
                label="compute buffer on the GPU",
                size_bytes=buffer,
                formula=how,
                where=where,  # type: ignore[arg-type]
            )
        )
        if not unified_memory:
            lines.append(
                MemoryLine(
                    label="GPU context",
                    size_bytes=CUDA_CONTEXT_BYTES,
                    formula="an allowance, not measured",
                    where="gpu",
                )
            )
    return tuple(lines)


def compute_buffer(
    arch: Architecture, context: int, parallel: int = 1, micro_batch: int = MICRO_BATCH
) -> tuple[int, str]:
    """Bytes of the compute buffer and how they come about.

    Args:
        arch: the model.
        context: of one slot, padded.
        parallel: slots.
        micro_batch: tokens per pass; never more than all slots' contexts together.
    """
    rows = min(micro_batch, context * parallel)
    hidden = arch.hidden_size
    if arch.is_moe:
        inner = arch.num_experts_per_tok * arch.moe_intermediate_size
        outputs = arch.num_experts_per_tok * hidden
        spill = outputs if outputs > 2 * inner else 0
        name = f"{arch.num_experts_per_tok} experts' width {inner:,}"
    else:
        inner, spill, name = arch.intermediate_size, 0, f"inner width {arch.intermediate_size:,}"
    queries = arch.num_attention_heads * arch.head_dim
    keys = arch.num_key_value_heads * arch.head_dim
    feed_forward = rows * (3 * inner + 5 * hidden + spill) * 4
    attention = rows * (3 * hidden + 2 * queries + 2 * keys) * 4
    head = (parallel * arch.vocab_size + rows * 5 * hidden) * 4
    mask = rows * context * 2
    spilled = f" + {spill:,}" if spill else ""
    if feed_forward >= max(attention, head):
        size = feed_forward
        how = f"{rows} tokens x (3 x {name} + 5 x hidden {hidden:,}{spilled}) x 4 bytes"
    elif attention >= head:
        size = attention
        how = f"{rows} tokens x (3 x hidden {hidden:,} + 2 x {queries:,} + 2 x {keys:,}) x 4 bytes"
    else:
        size = head
        how = (
            f"({parallel} x {arch.vocab_size:,} logits + {rows} tokens x 5 x hidden {hidden:,})"
            " x 4 bytes"
        )
    return size + mask, f"{how} + mask {rows} x {context:,} x 2 bytes"


@dataclass(frozen=True, slots=True)
class _Split:
    host: int
    gpu: int
    host_what: str
    gpu_what: str


@lru_cache(maxsize=4096)
def _split_weights(arch: Architecture, format: Format, at: Placement) -> _Split:
    """llama.cpp puts the *last* layers on the GPU, the output matrix when there is one layer to
    spare, and never the embedding; ``--n-cpu-moe`` keeps the experts of the *first* layers.
    """
    sizes = weights(arch, format)
    layers = arch.num_hidden_layers
    first = layers - min(at.gpu_layers, layers)
    everything = at.gpu_layers > layers
    gpu = sum(sizes.layers[first:]) + sum(sizes.experts[max(first, at.cpu_moe_layers) :])
    if everything:
        gpu += sizes.top
    host = sizes.total - gpu
    if everything and arch.tie_word_embeddings:
        gpu += sizes.embedding  # the output needs it there, the look-up needs it here
    return _Split(
        host=host,
        gpu=gpu,
        host_what="the embedding"
        + (f", {first} of {layers} layers" if first else "")
        + (f", the experts of {at.cpu_moe_layers} layers" if at.cpu_moe_layers else ""),
        gpu_what=f"{layers - first} of {layers} layers" + (" and the output" if everything else ""),
    )


def _kv_formula(
    arch: Architecture, layers: int, context: int, kv_cache_type: KvCacheType, parallel: int
) -> str:
    from qwharf.memory.kv_cache import BYTES

    each = f" x {parallel} requests" if parallel > 1 else ""
    return (
        f"2 x {layers} layers x {arch.num_key_value_heads} KV heads x {arch.head_dim} x "
        f"{context:,} tokens{each} x {float(BYTES[kv_cache_type]):g} bytes ({kv_cache_type})"
    )
