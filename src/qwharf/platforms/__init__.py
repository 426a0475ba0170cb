"""The platforms that can run a model, by the names users write; each is imported when asked for."""

from __future__ import annotations

import importlib
from typing import TypeGuard, cast

from qwharf.errors import UsageError
from qwharf.platforms.base import (
    Applied,
    Availability,
    ChildPlatform,
    Platform,
    Served,
    ServicePlatform,
    Step,
    Tell,
)

__all__ = [
    "Applied",
    "Availability",
    "ChildPlatform",
    "Platform",
    "Served",
    "ServicePlatform",
    "Step",
    "Tell",
    "get",
    "is_child",
    "names",
]

_WHERE = {
    "llama.cpp": ("qwharf.platforms.llama_cpp", "LlamaCpp"),
    "vllm": ("qwharf.platforms.vllm", "Vllm"),
    "sglang": ("qwharf.platforms.sglang", "Sglang"),
    "mlx": ("qwharf.platforms.mlx", "Mlx"),
    "ollama": ("qwharf.platforms.ollama", "OllamaPlatform"),
    "lmstudio": ("qwharf.platforms.lm_studio", "LmStudioPlatform"),
    "endpoint": ("qwharf.platforms.endpoint", "EndpointPlatform"),
}


def names() -> tuple[str, ...]:
    """All platforms, the embedded one first."""
    return tuple(_WHERE)


def get(name: str) -> Platform:
    """The platform called ``name``.

    Raises:
        UsageError: there is none.
    """
    where = _WHERE.get(name)
    if where is None:
        raise UsageError(
            name,
            found="no platform of that name",
            expected=" or ".join(_WHERE),
            hint="leave --platform out to get the best that fits",
        )
    module, kind = where
    return cast(Platform, getattr(importlib.import_module(module), kind)())


def is_child(platform: Platform) -> TypeGuard[ChildPlatform]:
    """Whether the daemon starts this platform's engine itself."""
    return hasattr(platform, "launch")
