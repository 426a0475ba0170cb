"""How each kind of engine is asked and understood, by the names of the platforms.

The internal request goes in, OpenAI's events come out, whatever engine is between. What an engine
lacks, or would ignore in silence, is done here or refused here.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import cast

from qwharf.gateway.engines.wire import Engine, Stream, Wire
from qwharf.types import DeploymentSpec

__all__ = ["Engine", "Stream", "Wire", "kinds", "of"]

OTHER = "openai"
"""For any server that is none of those known by name."""
_WHERE = {
    "llama.cpp": ("llama_cpp", "LlamaCpp"),
    "vllm": ("vllm", "Vllm"),
    "sglang": ("sglang", "Sglang"),
    "mlx": ("mlx", "Mlx"),
    "ollama": ("ollama", "Ollama"),
    "lmstudio": ("lm_studio", "LmStudio"),
    OTHER: ("openai", "OpenAi"),
}


def kinds() -> tuple[str, ...]:
    """Every kind of engine that is spoken to."""
    return tuple(_WHERE)


def of(spec: DeploymentSpec) -> Engine:
    """How to speak to what runs ``spec``."""
    kind = spec.endpoint.kind if spec.endpoint else spec.platform
    return _engine(kind if kind in _WHERE else OTHER)


@cache
def _engine(kind: str) -> Engine:
    module, name = _WHERE[kind]
    return cast(Engine, getattr(importlib.import_module(f"{__name__}.{module}"), name)())
