"""What any platform asks of a deployment's numbers, and of weights that claim to be its model."""

from __future__ import annotations

from collections.abc import Sequence

from qwharf import compatibility
from qwharf.errors import InvalidFile, UsageError
from qwharf.types import Architecture, DeploymentSpec

MAX_THREADS = 512
"""ggml's own limit, and more than any engine has a use for."""
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


def check_range(what: str, value: int, low: int, high: int, option: str) -> None:
    """``value`` lies between ``low`` and ``high``.

    Raises:
        UsageError: it does not.
    """
    if not low <= value <= high:
        raise UsageError(
            what,
            found=str(value),
            expected=f"a whole number from {low:,} to {high:,}",
            hint=f"choose another {option}",
        )


def check_threads(spec: DeploymentSpec) -> None:
    """The number of threads, where one was asked for.

    Raises:
        UsageError: it makes no sense.
    """
    if spec.threads is not None:
        check_range("threads", spec.threads, 1, MAX_THREADS, "--threads")


def check_kv_cache_type(spec: DeploymentSpec, types: Sequence[str], platform: str) -> None:
    """The KV cache's type is one of ``types``.

    Raises:
        UsageError: it is not.
    """
    if spec.kv_cache_type not in types:
        raise UsageError(
            "kv_cache_type",
            found=spec.kv_cache_type,
            expected=f"one of {', '.join(types)} on {platform}",
            hint="choose another --kv-cache",
        )


def refuse_adapters(spec: DeploymentSpec, why: str | None = None) -> None:
    """No LoRA adapters; ``why`` not, where the compatibility data knows nothing of the platform.

    Raises:
        UsageError: there are some.
    """
    if spec.adapters:
        raise UsageError(
            "adapters",
            found=", ".join(spec.adapters),
            expected=f"none: {why or compatibility.facts(spec.platform).adapters.why}",
            hint="merge the adapter into the weights, or use --platform llama.cpp or vllm",
        )


def check_identity(spec: DeploymentSpec, found: Architecture) -> None:
    """The weights have the shape that was planned with.

    Raises:
        InvalidFile: they are another model's.
    """
    kind = "folder" if spec.artifact_path.is_dir() else "file"
    for field in IDENTITY:
        has, wants = getattr(found, field), getattr(spec.architecture, field)
        if has != wants:
            raise InvalidFile(
                str(spec.artifact_path),
                found=f"a model with {field} = {has}",
                expected=f"{wants}, as {spec.model} has",
                hint=f"name the model that the {kind} holds",
            )
