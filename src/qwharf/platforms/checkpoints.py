"""What the engines that load a folder of safetensors have in common: vLLM, SGLang and mlx-lm.

Whether the folder is the model that was planned with, whether its adapters are what they claim to
be, and whether its matrices can be cut into as many pieces as there are cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwharf import compatibility
from qwharf.errors import FormatUnavailable, InvalidFile, StorageError, UsageError
from qwharf.formats.adapter import CONFIG, MAX_RANK, Adapter, read_adapter
from qwharf.formats.checkpoint import Checkpoint, read_checkpoint, read_json
from qwharf.formats.names import FORMATS
from qwharf.platforms import wishes
from qwharf.platforms.yarn import longest_context
from qwharf.types import Architecture, DeploymentSpec, Format

MAX_PARALLEL = 1024
"""vLLM's own default on large GPUs; it refuses more than it batches tokens, 2,048 at the least."""

PLAIN = ("bf16", "f16", "f32")
"""Weights that are not quantised."""
SAFETENSORS = tuple(
    Format("safetensors", quantization)
    for quantization in (
        *PLAIN, "fp8", "fp8-channel", "awq", "gptq-int4", "gptq-int8", "w4a16", "w8a8",
        "compressed-tensors",
    )
)  # fmt: skip
"""What vLLM and SGLang load, each on the hardware that it has kernels for."""

# --------------------------------------------------------------------------------- the numbers


def check_format(spec: DeploymentSpec, offered: tuple[Format, ...], hint: str) -> None:
    """``spec.format`` is one of ``offered``.

    Raises:
        FormatUnavailable: it is not.
    """
    if spec.format not in offered or spec.format not in FORMATS:
        raise FormatUnavailable(
            spec.name,
            found=str(spec.format),
            expected=f"one of {', '.join(map(str, offered))} on {spec.platform}",
            hint=hint,
        )


def check_numbers(spec: DeploymentSpec, kv_cache_types: tuple[str, ...]) -> None:
    """Context, parallel requests, threads and the type of the KV cache make sense.

    Raises:
        UsageError: one does not.
    """
    wishes.check_range("parallel", spec.parallel, 1, MAX_PARALLEL, "--parallel")
    wishes.check_threads(spec)
    wishes.check_range("gpus", spec.gpus, 0, 1024, "number of GPUs")
    for what, value, option in (
        ("gpu_layers", spec.gpu_layers, "--gpu-layers"),
        ("cpu_moe_layers", spec.cpu_moe_layers, "--cpu-moe-layers"),
    ):
        if value < 0 or (value and not spec.gpus):
            raise UsageError(
                what,
                found=str(value),
                expected=f"0: {spec.platform} keeps a model on one kind of memory",
                hint=f"leave {option} out, or use llama.cpp",
            )
    wishes.check_kv_cache_type(spec, kv_cache_types, spec.platform)
    most = longest_context(spec.architecture)
    if not 1 <= spec.context_tokens <= most:
        raise UsageError(
            "context_tokens",
            found=f"{spec.context_tokens:,}",
            expected=f"from 1 to {most:,} with these weights",
            hint=f"choose --context {most} or less",
        )


# ---------------------------------------------------------------------------------- the folder


def check_folder(spec: DeploymentSpec) -> Checkpoint:
    """The folder is whole, and holds what was planned with; its weights' headers are read.

    Raises:
        InvalidFile, UnsupportedArchitecture, StorageError: it is not.
    """
    checkpoint = read_checkpoint(spec.artifact_path)
    wishes.check_identity(spec, checkpoint.architecture)
    if not _same(checkpoint.format, spec.format):
        raise InvalidFile(
            str(spec.artifact_path / "config.json"),
            found=f"{checkpoint.format} weights",
            expected=str(spec.format),
            hint=f"deploy it as `--format {checkpoint.format}`, or fetch it again",
        )
    _check_tokenizer(spec.artifact_path)
    assert checkpoint.tensors is not None  # noqa: S101 - reads every header, whatever is in it
    return checkpoint


def _same(found: Format, wanted: Format) -> bool:
    """MLX folders of 16 bits declare no quantisation; a name may tell the size of groups too."""
    if wanted.container == "mlx" and wanted.quantization in PLAIN:
        return found.quantization == wanted.quantization
    return (found.container, found.quantization.partition("-g")[0]) == (
        wanted.container,
        wanted.quantization.partition("-g")[0],
    ) or found.quantization == wanted.quantization


def _check_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise InvalidFile(
                str(folder / name),
                found="no file",
                expected="the tokenizer beside the weights",
                hint="fetch it into the folder, from the model that the weights came from",
            )


# ----------------------------------------------------------------------------------- the cards


def usual_group(spec: DeploymentSpec) -> int:
    """Inputs of a matrix that stay on one card together, by what is usual for the format."""
    return compatibility.slice_of(spec.platform, spec.format, "nvidia")


def group_of(config: Mapping[str, Any], spec: DeploymentSpec) -> int:
    """The same by a ``config.json``: inputs that share a scale; else the usual."""
    quant = config.get("quantization_config")
    usual = usual_group(spec)
    if not isinstance(quant, Mapping):
        return usual
    block = quant.get("weight_block_size")
    found = block[-1] if isinstance(block, list) and block else quant.get("group_size")
    groups = quant.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and weights.get("strategy") == "group":
            found = weights.get("group_size")
    return found if isinstance(found, int) and found > 0 else usual


def experts_apart(arch: Architecture, gpus: int, group: int) -> bool:
    """Whether each card must hold whole experts, since slices of them would not be whole groups.

    vllm issue 17569: experts of 768 (30B-A3B) in blocks of 128 can be cut in 2, not in 4.
    """
    return arch.is_moe and gpus > 1 and arch.moe_intermediate_size % (gpus * group) != 0


def splits(arch: Architecture, gpus: int, group: int) -> bool:
    """Whether the model can be cut into ``gpus`` slices, each of whole heads and whole groups."""
    heads, kv_heads = arch.num_attention_heads, arch.num_key_value_heads
    if heads % gpus or (kv_heads % gpus and gpus % kv_heads):  # too few KV heads are repeated
        return False
    if gpus > 1 and (heads * arch.head_dim) % (gpus * group):
        return False
    if arch.is_moe:
        return not experts_apart(arch, gpus, group) or arch.num_experts % gpus == 0
    return gpus == 1 or arch.intermediate_size % (gpus * group) == 0


def check_split(spec: DeploymentSpec, group: int) -> None:
    """The weights can be cut into ``spec.gpus`` slices.

    Raises:
        UsageError: they cannot; the numbers of cards that work are told.
    """
    arch, gpus = spec.architecture, max(1, spec.gpus)
    if splits(arch, gpus, group):
        return
    good = [n for n in range(1, gpus) if splits(arch, n, group)]
    inner = arch.moe_intermediate_size if arch.is_moe else arch.intermediate_size
    raise UsageError(
        "gpus",
        found=f"{gpus} slices of {arch.num_attention_heads} heads, {arch.num_key_value_heads} KV"
        f" heads and {inner:,} inner values in groups of {group}",
        expected=f"a number of GPUs that leaves them whole: {', '.join(map(str, good))}",
        hint=f"use {good[-1]} GPUs, or the 16-bit weights",
    )


# -------------------------------------------------------------------------------- the adapters

USUAL_RANK = 16
RANKS = (8, 16, 32, 64, 128, 256, 320, MAX_RANK)
"""What vLLM can be told as the largest rank (``config/lora.py``); SGLang takes any."""


def check_adapters(spec: DeploymentSpec) -> tuple[Adapter, ...]:
    """The adapters, looked over.

    Raises:
        InvalidFile: one is not a LoRA adapter for this model.
        StorageError: one may not be read.
    """
    return tuple(read_adapter(folder, spec.architecture) for folder in spec.adapters.values())


def largest_rank(spec: DeploymentSpec) -> int:
    """The least of :data:`RANKS` that all adapters keep to; what cannot be read has the usual."""
    ranks = []
    for folder in spec.adapters.values():
        try:
            rank = read_json(folder / CONFIG).get("r")
        except (InvalidFile, StorageError):
            rank = None
        ranks.append(rank if isinstance(rank, int) else USUAL_RANK)
    return next((r for r in RANKS if r >= max(ranks)), RANKS[-1])
