"""Bytes of weights, tensor by tensor, for every format.

The rules, by format:

gguf
    Each tensor has the type that the quantisation's mixing rules give it
    (:mod:`qwharf.quantize.mixing`); a tied head is not stored.
safetensors bf16, f16, f32
    16 or 32 bits per parameter.
fp8
    The linear layers take 8 bits and a 16-bit scale per 128 x 128 block; the rest 16 bits.
awq, gptq-int4, gptq-int8
    The linear layers take 4 or 8 bits and, per group of 128 inputs, a 16-bit scale and a zero
    point as wide as the weight; GPTQ adds an int32 group number per input; the rest 16 bits.
mlx
    Everything but the norms takes its bits and two 16-bit numbers per group of 64 inputs
    (MLX's default; Qwen's 4-bit repositories were seen with 128); the router always 8 bits.

"Linear layers" are the projections of attention, feed-forward and experts. Sources: the layouts
that AutoAWQ, GPTQModel and mlx-lm write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from qwharf.errors import UsageError
from qwharf.formats.tensors import (
    TensorSpec,
    active_parameter_count,
    gguf_tensors,
    parameter_count,
)
from qwharf.types import Architecture, Format

__all__ = [
    "active_parameter_count",
    "expert_bytes_by_layer",
    "layer_bytes",
    "parameter_count",
    "read_bytes_per_token",
    "sized_tensors",
    "weight_bytes",
    "weight_bytes_of_file",
]

GROUP = 128
MLX_GROUP = 64
_LINEAR = frozenset({"attention", "ffn", "expert"})


@lru_cache(maxsize=512)
def sized_tensors(arch: Architecture, format: Format) -> tuple[tuple[TensorSpec, int], ...]:
    """Every tensor, under its GGUF name and with experts stacked, and its bytes in ``format``.

    Raises:
        UsageError: the format is not known.
    """
    if format.container == "gguf":
        from qwharf.quantize.mixing import tensor_types

        return tuple(
            (spec, type_.size_bytes(spec.elements))
            for spec, type_ in tensor_types(arch, format.quantization)
        )
    size = _sizes(format)
    return tuple((spec, size(spec)) for spec in gguf_tensors(arch))


def weight_bytes(arch: Architecture, format: Format) -> int:
    """Bytes of all weights in memory. A tied head counts once, as engines keep it once."""
    return sum(size for _, size in sized_tensors(arch, format))


def layer_bytes(arch: Architecture, format: Format) -> tuple[int, ...]:
    """Bytes of each layer, experts included, the first layer first."""
    return _by_layer(arch, format, lambda spec: True)


def expert_bytes_by_layer(arch: Architecture, format: Format) -> tuple[int, ...]:
    """Bytes of each layer's experts (0 in a dense model), the first layer first.

    Layers differ: a mix gives some of them better types.
    """
    return _by_layer(arch, format, lambda spec: spec.role == "expert")


def read_bytes_per_token(arch: Architecture, format: Format) -> int:
    """Bytes of weights that one generated token reads: all, but only the active experts, and one
    row of the embedding table unless that is the output matrix too.
    """
    total = 0
    for spec, size in sized_tensors(arch, format):
        if spec.role == "expert":
            total += size * arch.num_experts_per_tok // arch.num_experts
        elif spec.role == "embedding" and not arch.tie_word_embeddings:
            total += size // arch.vocab_size
        else:
            total += size
    return total


def weight_bytes_of_file(path: Path) -> int:
    """Bytes of the tensors of a ``.gguf`` file (all its parts) or of a checkpoint's folder, from
    the headers.

    Raises:
        InvalidFile: a header is damaged.
    """
    if path.is_dir():
        from qwharf.formats.checkpoint import read_checkpoint

        checkpoint = read_checkpoint(path)
        tied = checkpoint.architecture.tie_word_embeddings
        return sum(
            entry.size_bytes
            for name, (_, entry) in checkpoint.tensors.items()
            if not (tied and name == "lm_head.weight")
        )
    from qwharf.formats.gguf import read_gguf, split_parts

    return sum(
        tensor.size_bytes
        for part in split_parts(path)
        for tensor in read_gguf(part).tensors.values()
    )


# ----------------------------------------------------------------------------------------- inside


def _by_layer(
    arch: Architecture, format: Format, wanted: Callable[[TensorSpec], bool]
) -> tuple[int, ...]:
    sums = [0] * arch.num_hidden_layers
    for spec, size in sized_tensors(arch, format):
        if spec.name.startswith("blk.") and wanted(spec):
            sums[int(spec.name.split(".", 2)[1])] += size
    return tuple(sums)


def _sizes(format: Format) -> Callable[[TensorSpec], int]:
    rules = _RULES.get((format.container, format.quantization))
    if rules is None:
        raise UsageError(
            str(format),
            found=f"format {format}",
            expected="one whose bytes per weight are known",
            hint="`qwharf show MODEL` lists the formats",
        )
    return rules


def _plain(bytes_per_weight: int) -> Callable[[TensorSpec], int]:
    return lambda spec: spec.elements * bytes_per_weight


def _stack(spec: TensorSpec) -> tuple[int, int, int]:
    """(matrices, out, in)."""
    return (1, *spec.shape) if len(spec.shape) == 2 else spec.shape  # type: ignore[return-value]


def _fp8(spec: TensorSpec) -> int:
    if spec.role not in _LINEAR:
        return spec.elements * 2
    count, out, inner = _stack(spec)
    return spec.elements + count * -(-out // GROUP) * -(-inner // GROUP) * 2


def _grouped(bits: int, *, group_numbers: bool) -> Callable[[TensorSpec], int]:
    def size(spec: TensorSpec) -> int:
        if spec.role not in _LINEAR:
            return spec.elements * 2
        count, out, inner = _stack(spec)
        groups = -(-inner // GROUP)
        total = spec.elements * bits // 8 + count * groups * out * (16 + bits) // 8
        return total + (count * inner * 4 if group_numbers else 0)

    return size


def _mlx(bits: int) -> Callable[[TensorSpec], int]:
    def size(spec: TensorSpec) -> int:
        if spec.role == "norm":
            return spec.elements * 2
        wide = 8 if spec.role == "router" else bits
        return spec.elements * wide // 8 + spec.elements // MLX_GROUP * 4

    return size


_RULES: dict[tuple[str, str], Callable[[TensorSpec], int]] = {
    ("safetensors", "bf16"): _plain(2),
    ("safetensors", "f16"): _plain(2),
    ("safetensors", "f32"): _plain(4),
    ("safetensors", "fp8"): _fp8,
    ("safetensors", "awq"): _grouped(4, group_numbers=False),
    ("safetensors", "gptq-int4"): _grouped(4, group_numbers=True),
    ("safetensors", "gptq-int8"): _grouped(8, group_numbers=True),
    ("mlx", "bf16"): _plain(2),
    ("mlx", "8bit"): _mlx(8),
    ("mlx", "6bit"): _mlx(6),
    ("mlx", "4bit"): _mlx(4),
}
