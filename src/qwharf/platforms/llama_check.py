"""What is refused before llama.cpp is started, because it would refuse it, or end its process.

What must hold for any Qwen3 in a GGUF file is in :mod:`qwharf.formats.gguf_check`; here is what
the engine adds to that, and what concerns the parameters of a deployment. Found by trial with
random files and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from qwharf.errors import FormatUnavailable, InvalidFile, UsageError
from qwharf.formats.gguf_reader import GgufFile, GgufTensor
from qwharf.formats.names import FORMATS
from qwharf.platforms import wishes
from qwharf.platforms.yarn import longest_context
from qwharf.types import DeploymentSpec

PAD_TOKENS = 256
"""A slot's context is a multiple of this."""
KV_CACHE_TYPES = ("f16", "bf16", "q8_0", "q4_0")
MAX_PARALLEL = 256
"""Llama.cpp's own limit of sequences."""
KV_BLOCK = 32
"""Numbers of one head that share a scale in a quantised cache."""
REMAKE = "convert the checkpoint again with `qwharf convert`, or get another file"


def check_format(spec: DeploymentSpec) -> None:
    """Only GGUF files can be run."""
    if spec.format.container != "gguf" or spec.format not in FORMATS:
        raise FormatUnavailable(
            spec.name,
            found=str(spec.format),
            expected="a GGUF format",
            hint="convert it: `qwharf convert`, or try `--format gguf:q4_k_m`",
        )


def check_parameters(spec: DeploymentSpec) -> None:
    """Numbers that llama.cpp would stop at, or worse."""
    check_numbers(spec, "llama.cpp", KV_CACHE_TYPES)
    _check_context(spec)


def check_numbers(spec: DeploymentSpec, platform: str, kv_cache_types: Sequence[str]) -> None:
    """The same but for the context's length, for any platform that llama.cpp works in."""
    wishes.check_range(
        "context_tokens", spec.context_tokens, 1, 2**31 - 1 - PAD_TOKENS, "--context"
    )
    wishes.check_range("parallel", spec.parallel, 1, MAX_PARALLEL, "--parallel")
    wishes.check_threads(spec)
    wishes.check_range("gpu_layers", spec.gpu_layers, 0, 10_000, "--gpu-layers")
    wishes.check_range("cpu_moe_layers", spec.cpu_moe_layers, 0, 10_000, "--cpu-moe-layers")
    total = (spec.context_tokens + PAD_TOKENS) * spec.parallel
    if total >= 2**31:
        raise UsageError(
            "context_tokens",
            found=f"{spec.parallel} x {spec.context_tokens:,} tokens",
            expected="fewer than 2,147,483,648 together",
            hint="choose a smaller --context or --parallel",
        )
    wishes.check_kv_cache_type(spec, kv_cache_types, platform)
    head_dim = spec.architecture.head_dim
    if spec.kv_cache_type in ("q8_0", "q4_0") and head_dim % KV_BLOCK:
        raise UsageError(
            "kv_cache_type",
            found=f"{spec.kv_cache_type} with heads of {head_dim}",
            expected=f"heads of a multiple of {KV_BLOCK} for a quantised cache",
            hint="choose --kv-cache f16",
        )


def _check_context(spec: DeploymentSpec) -> None:
    most = longest_context(spec.architecture)
    if spec.context_tokens > most:
        raise UsageError(
            "context_tokens",
            found=f"{spec.context_tokens:,}",
            expected=f"at most {most:,} with these weights",
            hint=f"choose --context {most} or less",
        )


NORM_TYPES = frozenset({"F32"})
MATRIX_TYPES = frozenset({
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "TQ1_0", "TQ2_0", "MXFP4", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS",
    "IQ3_S", "IQ4_NL", "IQ4_XS",
})  # fmt: skip
"""Other types, and norms in 16 bits, end llama.cpp's process (seen by trial)."""


def _check_types(tensors: Iterable[GgufTensor]) -> None:
    for tensor in tensors:
        allowed = NORM_TYPES if len(tensor.shape) == 1 else MATRIX_TYPES
        if tensor.type.name not in allowed:
            raise InvalidFile(
                str(tensor.path),
                found=f"{tensor.name} as {tensor.type.name}",
                expected="F32" if allowed is NORM_TYPES else "a floating or quantised type",
                hint=REMAKE,
            )


def check_file(spec: DeploymentSpec) -> None:
    """The file is whole, llama.cpp can stand it, and it is the one that was planned with."""
    from qwharf.formats.gguf import all_tensors, read_gguf
    from qwharf.formats.gguf_check import validate_for_engine

    file = read_gguf(spec.artifact_path)
    found = validate_for_engine(file)
    _check_types(all_tensors(file).values())
    _check_sampling(file)
    wishes.check_identity(spec, found)


def check_adapters(spec: DeploymentSpec) -> None:
    """The adapters are files that llama.cpp can put on this model.

    Raises:
        InvalidFile, StorageError: one is not.
    """
    from qwharf.formats.gguf_adapter import check_gguf_adapter

    for path in spec.adapters.values():
        check_gguf_adapter(path, spec.architecture)


SAMPLING_RANGES = {
    "top_k": (-(2**31), 2**31 - 1),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "temp": (0.0, 100.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "penalty_last_n": (-1, 2**31 - 1),
    "penalty_repeat": (0.01, 100.0),
    "mirostat": (0, 2),
    "mirostat_tau": (0.0, 1000.0),
    "mirostat_eta": (0.0, 1000.0),
}
"""``general.sampling.*``: defaults that a file may bring along; some values end the process."""


def _check_sampling(file: GgufFile) -> None:
    for name, (low, high) in SAMPLING_RANGES.items():
        key = f"general.sampling.{name}"
        value = file.metadata.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or (number and math.isfinite(value) and low <= value <= high):
            continue
        raise InvalidFile(
            str(file.path),
            found=f"{key} = {value!r:.60}",
            expected=f"a number from {low} to {high}",
            hint=REMAKE,
        )
