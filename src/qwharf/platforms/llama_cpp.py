"""The embedded platform: llama.cpp, from the ``xllamacpp`` wheel, in a child process.

What it is told is in :func:`arguments`; what it answers, in its log, is read by
:mod:`qwharf.platforms.llama_log`. Nothing here imports the engine.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from qwharf.errors import FormatUnavailable, InvalidFile, UsageError
from qwharf.formats.gguf_reader import GgufTensor
from qwharf.formats.names import FORMATS
from qwharf.platforms import llama_log
from qwharf.platforms.base import Applied, Availability
from qwharf.types import Architecture, DeploymentSpec, Format, Launch

PACKAGE = "xllamacpp"
CHILD = "qwharf.platforms.llama_server"
HOST = "127.0.0.1"
KV_CACHE_TYPES = ("f16", "bf16", "q8_0", "q4_0")
MAX_PARALLEL = 256
"""Llama.cpp's own limit of sequences."""
MAX_THREADS = 512
"""ggml's own limit."""
PAD_TOKENS = 256
"""A slot's context is a multiple of this."""
KV_BLOCK = 32
"""Numbers of one head that share a scale in a quantised cache."""

QWEN3_POSITIONS, QWEN3_TRAINED = 40_960, 32_768
"""The hybrid models' files promise 40,960 tokens: the 32,768 they were trained on and room for an
answer. YaRN is reckoned from the latter."""
YARN_FACTORS = (2, 4)
"""Powers of two, so that the engine's own reckoning of the context is exact."""


class LlamaCpp:
    """The platform ``llama.cpp``."""

    name = "llama.cpp"

    def engine(self) -> str:
        """Name and version, e.g. ``llama.cpp (xllamacpp 2026.10.11549)``."""
        return f"llama.cpp ({PACKAGE} {_version() or 'not installed'})"

    def availability(self) -> Availability:
        """Whether the wheel, and the system library that it needs, are here."""
        version = _version()
        found = importlib.util.find_spec(PACKAGE) if version else None
        if version is None or found is None:
            return Availability(
                installed=False,
                version=version,
                where=None,
                reason=f"the package {PACKAGE} is not installed",
                hint="`pip install xllamacpp` (wheels: Linux with glibc, macOS, Windows on x86-64)",
            )
        where = str(Path(found.origin).parent) if found.origin else None
        if not _has_openmp():
            return Availability(
                installed=False,
                version=version,
                where=where,
                reason="libgomp.so.1, which the engine needs, is not on this system",
                hint="install it: `apt install libgomp1`, `dnf install libgomp`",
            )
        return Availability(installed=True, version=version, where=where)

    def formats(self) -> tuple[Format, ...]:
        """Every GGUF quantisation."""
        return tuple(f for f in FORMATS if f.container == "gguf")

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what llama.cpp would refuse, or end its process over."""
        here = self.availability()
        if not here.installed:
            raise FormatUnavailable(
                spec.name,
                found=here.reason,
                expected="the engine of this platform",
                hint=here.hint,
            )
        check_format(spec)
        check_parameters(spec)
        check_file(spec)

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """The child's command."""
        return Launch(
            argv=(sys.executable, "-m", CHILD, *arguments(spec, port)),
            base_url=f"http://{HOST}:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        """What begins with this line of the log."""
        return llama_log.phase(log_line)

    def applied(self, log: Iterable[str]) -> Applied:
        """The buffers of the latest start."""
        return llama_log.applied(log)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the latest start failed, or the engine died."""
        return llama_log.explain(log, exit_code)


@cache
def _version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _has_openmp() -> bool:
    """The wheel for Linux relies on the system's OpenMP."""
    if sys.platform != "linux":
        return True
    import ctypes

    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return False
    return True


# --------------------------------------------------------------------------------------- launch


def arguments(spec: DeploymentSpec, port: int) -> list[str]:
    """The options of llama.cpp's server for ``spec``."""
    each = -(-spec.context_tokens // PAD_TOKENS) * PAD_TOKENS
    argv = [
        *("--model", str(spec.artifact_path)),
        *("--alias", spec.name),
        *("--host", HOST),
        *("--port", str(port)),
        *("--ctx-size", str(each * spec.parallel)),
        *("--parallel", str(spec.parallel)),
        *("--cache-type-k", spec.kv_cache_type),
        *("--cache-type-v", spec.kv_cache_type),
    ]
    if spec.threads is not None:
        argv += ["--threads", str(spec.threads)]
    argv += ["--n-gpu-layers", str(spec.gpu_layers)]
    if spec.cpu_moe_layers:
        argv += ["--n-cpu-moe", str(spec.cpu_moe_layers)]
    factor = yarn_factor(spec.architecture, spec.context_tokens)
    if factor is not None:
        argv += ["--rope-scaling", "yarn", "--rope-scale", str(factor)]
        argv += ["--yarn-orig-ctx", str(trained_context(spec.architecture))]
    return [*argv, "--load-mode", "none", "--die-with-parent"]


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


# ---------------------------------------------------------------------------------------- check


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
    _in_range("context_tokens", spec.context_tokens, 1, 2**31 - 1 - PAD_TOKENS, "--context")
    _in_range("parallel", spec.parallel, 1, MAX_PARALLEL, "--parallel")
    if spec.threads is not None:
        _in_range("threads", spec.threads, 1, MAX_THREADS, "--threads")
    _in_range("gpu_layers", spec.gpu_layers, 0, 10_000, "--gpu-layers")
    _in_range("cpu_moe_layers", spec.cpu_moe_layers, 0, 10_000, "--cpu-moe-layers")
    total = (spec.context_tokens + PAD_TOKENS) * spec.parallel
    if total >= 2**31:
        raise UsageError(
            "context_tokens",
            found=f"{spec.parallel} x {spec.context_tokens:,} tokens",
            expected="fewer than 2,147,483,648 together",
            hint="choose a smaller --context or --parallel",
        )
    if spec.kv_cache_type not in KV_CACHE_TYPES:
        raise UsageError(
            "kv_cache_type",
            found=spec.kv_cache_type,
            expected=f"one of {', '.join(KV_CACHE_TYPES)} on llama.cpp",
            hint="choose another --kv-cache",
        )
    head_dim = spec.architecture.head_dim
    if spec.kv_cache_type in ("q8_0", "q4_0") and head_dim % KV_BLOCK:
        raise UsageError(
            "kv_cache_type",
            found=f"{spec.kv_cache_type} with heads of {head_dim}",
            expected=f"heads of a multiple of {KV_BLOCK} for a quantised cache",
            hint="choose --kv-cache f16",
        )
    _check_context(spec)


def _in_range(what: str, value: int, low: int, high: int, option: str) -> None:
    if not low <= value <= high:
        raise UsageError(
            what,
            found=str(value),
            expected=f"a whole number from {low:,} to {high:,}",
            hint=f"choose another {option}",
        )


def _check_context(spec: DeploymentSpec) -> None:
    arch = spec.architecture
    most = arch.max_position_embeddings
    if arch.yarn_factor is None:
        most = max(most, trained_context(arch) * YARN_FACTORS[-1])
    elif arch.yarn_original_context_tokens is not None:
        most = max(most, int(arch.yarn_original_context_tokens * arch.yarn_factor))
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
                hint="convert the checkpoint again with `qwharf convert`, or get another file",
            )


IDENTITY = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "num_experts",
)
"""What must be alike in a file and in the plan that was made for it."""


def check_file(spec: DeploymentSpec) -> None:
    """The file is whole, llama.cpp can stand it, and it is the one that was planned with."""
    from qwharf.formats.gguf import all_tensors, read_gguf
    from qwharf.formats.gguf_check import validate_for_engine

    file = read_gguf(spec.artifact_path)
    found = validate_for_engine(file)
    _check_types(all_tensors(file).values())
    for field in IDENTITY:
        has, wants = getattr(found, field), getattr(spec.architecture, field)
        if has != wants:
            raise InvalidFile(
                str(spec.artifact_path),
                found=f"a model with {field} = {has}",
                expected=f"{wants}, as {spec.model} has",
                hint="name the model that the file holds",
            )
