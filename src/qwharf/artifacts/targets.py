"""Which tensors a model becomes in each format, and what ``config.json`` says of them.

Sources: Qwen's own repositories for FP8, AWQ and GPTQ; llm-compressor's presets ``W4A16``, ``W8A8``
and ``FP8_DYNAMIC``; mlx-lm ``models/qwen3{,_moe}.py`` (``sanitize``, ``quant_predicate``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qwharf.artifacts.encoders import (
    AwqEncoder,
    BlockFp8Encoder,
    Encoder,
    GptqEncoder,
    MlxEncoder,
    PackedEncoder,
    PlainEncoder,
    ScaledEncoder,
)
from qwharf.artifacts.matrices import Matrix
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors
from qwharf.formats.weights import awq, compressed, fp8, gptq, mlx
from qwharf.types import Architecture, Format

PLAIN = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
MLX_NAME = re.compile(r"(?P<bits>[2-8])bit(?:-g(?P<group>32|64|128))?")
LINEAR = frozenset({"attention", "ffn", "expert"})
"""What is quantised in every format but MLX's, which does embeddings too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One matrix, or a stack of them, under its name in the target."""

    name: str
    sources: tuple[str, ...]
    """Names in a checkpoint."""
    columns: int
    encoder: Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How to make one format."""

    quantized: Callable[[TensorSpec], Encoder | None]
    """The encoder of a matrix; ``None``: plain floats."""
    plain: str
    """Dtype of all that is not quantised."""
    config: dict[str, Any]
    """Keys of ``config.json``."""
    stacked: bool = False
    """Whether experts are stored stacked, as MLX has them."""


def is_folder_target(format: Format) -> bool:
    """Whether :func:`target_of` knows the format."""
    if format.container == "mlx":
        return format.quantization in PLAIN or _mlx_numbers(format.quantization) is not None
    return format.container == "safetensors" and format.quantization in (*PLAIN, *_QUANTIZED)


def _mlx_numbers(quantization: str) -> tuple[int, int] | None:
    found = MLX_NAME.fullmatch(quantization)
    if found is None or int(found["bits"]) not in mlx.BITS:
        return None
    return int(found["bits"]), int(found["group"] or mlx.GROUP)


def target_of(format: Format, arch: Architecture, dtype: str) -> Target:
    """How to make ``format``.

    Args:
        format: one that :func:`is_folder_target` affirms.
        arch: the model.
        dtype: of the source's plain floats; what is quantised for MLX keeps it.
    """
    if format.container == "mlx":
        numbers = _mlx_numbers(format.quantization)
        if numbers is None:
            return Target(
                quantized=_nothing, plain=PLAIN[format.quantization], config={}, stacked=True
            )
        return _mlx(arch, *numbers, dtype)
    if format.quantization in PLAIN:
        return Target(quantized=_nothing, plain=PLAIN[format.quantization], config={})
    return _QUANTIZED[format.quantization](arch)


def _nothing(_: TensorSpec) -> None:
    return None


def _linear(encoder: Encoder) -> Callable[[TensorSpec], Encoder | None]:
    return lambda spec: encoder if spec.role in LINEAR else None


def _section(content: dict[str, Any]) -> dict[str, Any]:
    return {"quantization_config": content}


def _fp8(arch: Architecture) -> Target:
    skipped = None
    if arch.is_moe:
        skipped = ["lm_head"]
        for i in range(arch.num_hidden_layers):
            at = f"model.layers.{i}."
            skipped += [at + "input_layernorm", at + "mlp.gate", at + "post_attention_layernorm"]
    return Target(
        quantized=_linear(BlockFp8Encoder()), plain="BF16", config=_section(fp8.config(skipped))
    )


def _compressed(kind: str, encoder: Encoder) -> Callable[[Architecture], Target]:
    def make(arch: Architecture) -> Target:
        ignore = ["lm_head", *(["re:.*mlp.gate$"] if arch.is_moe else [])]
        config = _section(compressed.config(kind, ignore))
        return Target(quantized=_linear(encoder), plain="BF16", config=config)

    return make


def _awq(arch: Architecture) -> Target:
    skipped = ["mlp.gate"] if arch.is_moe else None
    return Target(
        quantized=_linear(AwqEncoder()), plain="F16", config=_section(awq.config(skipped))
    )


def _gptq(bits: int) -> Callable[[Architecture], Target]:
    def make(arch: Architecture) -> Target:
        skipped = [r".*\.mlp\.gate$"] if arch.is_moe else []
        config = _section(gptq.config(bits, skipped))
        return Target(quantized=_linear(GptqEncoder(bits)), plain="F16", config=config)

    return make


_QUANTIZED: dict[str, Callable[[Architecture], Target]] = {
    "fp8": _fp8,
    "w4a16": _compressed("w4a16", PackedEncoder()),
    "w8a8": _compressed("w8a8", ScaledEncoder("I8")),
    "fp8-channel": _compressed("fp8-channel", ScaledEncoder("F8_E4M3")),
    "awq": _awq,
    "gptq-int4": _gptq(4),
    "gptq-int8": _gptq(8),
}


def _mlx(arch: Architecture, bits: int, group: int, dtype: str) -> Target:
    encoder = MlxEncoder(bits, group, dtype)
    router = MlxEncoder(mlx.ROUTER["bits"], mlx.ROUTER["group_size"], dtype)
    fits = arch.hidden_size % group == 0 and arch.hidden_size % router.group == 0
    routers = [
        f"model.layers.{i}.mlp.gate" for i in range(arch.num_hidden_layers if arch.is_moe else 0)
    ]

    def quantized(spec: TensorSpec) -> Encoder | None:
        if spec.role == "router":
            return router if fits else None
        if spec.role == "norm" or spec.shape[-1] % group:  # mlx-lm leaves these rows as they are
            return None
        return encoder

    section = mlx.config(bits, group, routers if fits else [])
    return Target(
        quantized=quantized,
        plain=dtype,
        config={"quantization": section, "quantization_config": section},
        stacked=True,
    )


def made_tensors(arch: Architecture, target: Target) -> list[Made]:
    """What is to be made, in the order of a checkpoint."""
    out: list[Made] = []
    stacks: dict[str, list[TensorSpec]] = {}
    specs = checkpoint_tensors(arch, lm_head=not arch.tie_word_embeddings)
    for spec in specs:
        name = spec.name
        if spec.role == "expert" and target.stacked:
            name = re.sub(r"\.experts\.\d+\.", ".switch_mlp.", name)
        stacks.setdefault(name, []).append(spec)
    for name, group in stacks.items():
        first = group[0]
        encoder = target.quantized(first) or PlainEncoder(target.plain, len(first.shape) == 1)
        sources = tuple(s.name for s in group)
        out.append(Made(name=name, sources=sources, columns=first.shape[-1], encoder=encoder))
    return out


def plain_dtype(matrices: Mapping[str, Matrix]) -> str:
    """The dtype of a model's plain floats, by its final norm; BF16 for one from GGUF."""
    region = matrices["model.norm.weight"].region
    return region.dtype if region.dtype in DTYPES else "BF16"
