"""Bytes of weights for every format.

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
fp8-channel, w8a8
    The linear layers take 8 bits and a 16-bit scale per output; the rest 16 bits.
w4a16
    The linear layers take 4 bits and a 16-bit scale per group of 128 inputs; the rest 16 bits.
mlx
    Everything but the norms takes its bits and two 16-bit numbers per group of inputs: 64 (MLX's
    default) or what the name says; Qwen's 4-bit repositories were seen with 128. The router always
    takes 8 bits.

"Linear layers" are the projections of attention, feed-forward and experts. Sources: the layouts
that AutoAWQ, GPTQModel, compressed-tensors and mlx-lm write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    "Weights",
    "active_parameter_count",
    "expert_bytes_by_layer",
    "layer_bytes",
    "parameter_count",
    "read_bytes_per_token",
    "repacked_bytes",
    "weight_bytes",
    "weight_bytes_of_file",
    "weights",
]

GROUP = 128
MLX_GROUP = 64
_LINEAR = frozenset({"attention", "ffn", "expert"})
REPACKED_ON_X86 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
"""Types whose tensors llama.cpp rewrites into another layout when it loads them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of all weights of one shape in one format. A tied head counts once, as engines keep it
    once. Layers may differ: a mix gives some of them better types.
    """

    embedding: int
    top: int
    """The last norm, and the output matrix where it is not the embedding."""
    layers: tuple[int, ...]
    """Each layer without its experts, the first one first."""
    experts: tuple[int, ...]
    """Each layer's experts, all of them together; 0 in a dense model."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.embedding + self.top + sum(self.layers) + sum(self.experts)


@lru_cache(maxsize=1024)
def weights(arch: Architecture, format: Format) -> Weights:
    """The bytes of ``arch`` in ``format``.

    Raises:
        UsageError: the format is not known.
    """
    return _weights(_shape(arch), format)


def _shape(arch: Architecture) -> Architecture:
    """``arch`` with nothing but the numbers that decide sizes, so that models share a sum."""
    return replace(
        arch,
        max_position_embeddings=0,
        rope_theta=0.0,
        rms_norm_eps=0.0,
        bos_token_id=None,
        eos_token_id=None,
        yarn_factor=None,
        yarn_original_context_tokens=None,
    )


@lru_cache(maxsize=512)
def _weights(arch: Architecture, format: Format) -> Weights:
    size = _sizes(arch, format)
    depends = _depends_on_layer(format)
    count = arch.num_hidden_layers
    embedding = top = 0
    alike = {"expert": 0, "rest": 0}  # of each layer, what is the same in all of them
    extra = {"expert": [0] * count, "rest": [0] * count}
    for spec in _one_layer(arch):
        if spec.role == "embedding":
            embedding += size(spec)
        elif not spec.name.startswith("blk."):
            top += size(spec)
        else:
            kind = "expert" if spec.role == "expert" else "rest"
            part = spec.name.split(".", 2)[2]
            if not depends(part):
                alike[kind] += size(spec)
                continue
            for layer in range(count):
                there = TensorSpec(f"blk.{layer}.{part}", spec.shape, spec.role)
                extra[kind][layer] += size(there)
    return Weights(
        embedding,
        top,
        tuple(alike["rest"] + more for more in extra["rest"]),
        tuple(alike["expert"] + more for more in extra["expert"]),
    )


@lru_cache(maxsize=64)
def _one_layer(arch: Architecture) -> list[TensorSpec]:
    """The tensors of no layer and of the first one; the others have the same shapes."""
    return gguf_tensors(replace(arch, num_hidden_layers=1))


def _depends_on_layer(format: Format) -> Callable[[str], bool]:
    """Whether a part of a layer may have another type in another layer."""
    if format.container != "gguf":
        return lambda part: False
    from qwharf.quantize.mixing import mix_of

    rules = mix_of(format.quantization).rules
    return lambda part: part.removesuffix(".weight").removesuffix("_exps") in rules


def repacked_bytes(arch: Architecture, format: Format) -> int:
    """Bytes of the tensors that the engine rewrites into another layout on x86 with AVX2."""
    from qwharf.quantize.mixing import tensor_types

    return sum(
        type_.size_bytes(spec.elements)
        for spec, type_ in tensor_types(arch, format.quantization)
        if type_.name in REPACKED_ON_X86 and spec.role != "embedding"
    )


def weight_bytes(arch: Architecture, format: Format) -> int:
    """Bytes of all weights in memory."""
    return weights(arch, format).total


def layer_bytes(arch: Architecture, format: Format) -> tuple[int, ...]:
    """Bytes of each layer, experts included, the first layer first."""
    found = weights(arch, format)
    return tuple(map(sum, zip(found.layers, found.experts, strict=True)))


def expert_bytes_by_layer(arch: Architecture, format: Format) -> tuple[int, ...]:
    """Bytes of each layer's experts (0 in a dense model), the first layer first."""
    return weights(arch, format).experts


def read_bytes_per_token(arch: Architecture, format: Format) -> int:
    """Bytes of weights that one generated token reads: all, but only the active experts, and one
    row of the embedding table unless that is the output matrix too.
    """
    found = weights(arch, format)
    active = sum(found.experts) * arch.num_experts_per_tok // max(arch.num_experts, 1)
    embedding = found.embedding
    if not arch.tie_word_embeddings:
        embedding //= arch.vocab_size
    return embedding + found.top + sum(found.layers) + active


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


def _sizes(arch: Architecture, format: Format) -> Callable[[TensorSpec], int]:
    if format.container == "gguf":
        from qwharf.quantize.mixing import tensor_type

        return lambda spec: tensor_type(spec, arch, format.quantization).size_bytes(spec.elements)
    rules = _mlx_rules(format) if format.container == "mlx" else None
    rules = rules or _RULES.get((format.container, format.quantization))
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


def _channelwise(spec: TensorSpec) -> int:
    """Eight bits and a 16-bit scale for each output."""
    if spec.role not in _LINEAR:
        return spec.elements * 2
    count, out, _ = _stack(spec)
    return spec.elements + count * out * 2


def _packed(spec: TensorSpec) -> int:
    """Four bits and a 16-bit scale per group, without zero points."""
    if spec.role not in _LINEAR:
        return spec.elements * 2
    count, out, inner = _stack(spec)
    return spec.elements // 2 + count * out * -(-inner // GROUP) * 2


def _mlx_rules(format: Format) -> Callable[[TensorSpec], int] | None:
    found = _MLX.fullmatch(format.quantization)
    return None if found is None else _mlx(int(found[1]), int(found[2] or MLX_GROUP))


def _mlx(bits: int, group: int) -> Callable[[TensorSpec], int]:
    def size(spec: TensorSpec) -> int:
        if spec.role == "norm":
            return spec.elements * 2
        wide = 8 if spec.role == "router" else bits
        return spec.elements * wide // 8 + spec.elements // group * 4

    return size


_MLX = re.compile(r"([2-8])bit(?:-g(32|64|128))?")
_RULES: dict[tuple[str, str], Callable[[TensorSpec], int]] = {
    ("safetensors", "bf16"): _plain(2),
    ("safetensors", "f16"): _plain(2),
    ("safetensors", "f32"): _plain(4),
    ("safetensors", "fp8"): _fp8,
    ("safetensors", "fp8-channel"): _channelwise,
    ("safetensors", "w8a8"): _channelwise,
    ("safetensors", "w4a16"): _packed,
    ("safetensors", "awq"): _grouped(4, group_numbers=False),
    ("safetensors", "gptq-int4"): _grouped(4, group_numbers=True),
    ("safetensors", "gptq-int8"): _grouped(8, group_numbers=True),
    ("mlx", "bf16"): _plain(2),
    ("mlx", "f16"): _plain(2),
    ("mlx", "f32"): _plain(4),
}
