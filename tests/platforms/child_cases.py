"""What every platform that we start can run here, and how its log tells of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engine_process import spec_of

from qwharf import platforms
from qwharf.errors import QwharfError
from qwharf.platforms import ChildPlatform
from qwharf.types import DeploymentSpec, Format

Weights = Callable[[Format], Path]
"""The tiny model in a format."""


@dataclass(frozen=True)
class Case:
    """A platform and a deployment that it can run here."""

    platform: ChildPlatform
    spec: DeploymentSpec
    package: str
    """What the daemon must never import."""
    stop_codes: tuple[int, ...] = (0,)
    """With which it may end when told to."""
    knows: Mapping[str, Any] = field(default_factory=dict)


BF16 = Format("safetensors", "bf16")
FORMATS = {"llama.cpp": Format("gguf", "q4_k_m"), "mlx": BF16, "vllm": BF16, "sglang": BF16}
PACKAGES = {"llama.cpp": "xllamacpp", "mlx": "mlx_lm", "vllm": "vllm", "sglang": "sglang"}
EXAMPLES = {"llama.cpp": Path("/models/m.gguf")}
"""Where golden commands say that the weights lie."""


def names() -> list[str]:
    """The platforms that we start."""
    return [name for name in platforms.names() if platforms.is_child(platforms.get(name))]


def installed_ones() -> list[Any]:
    """The same as parameters; marked where the engine must be installed first."""
    marks = {"llama.cpp": ()}
    return [pytest.param(n, marks=marks.get(n, pytest.mark.platforms)) for n in names()]


def case_of(name: str, weights: Weights) -> Case:
    """The case of a platform, whether or not its engine is here."""
    platform = platforms.get(name)
    assert platforms.is_child(platform)
    format = FORMATS[name]
    spec = spec_of(weights(format), platform=name, format=format)
    if name != "llama.cpp":
        spec = spec_of(weights(format), platform=name, format=format, kv_cache_type="bf16")
    return Case(platform, spec, PACKAGES[name], stop_codes=(0, -15) if name == "sglang" else (0,))


def runnable(case: Case) -> Case:
    """The case, if its engine can serve here; else the test is skipped, and says why."""
    here = case.platform.availability()
    if not here.installed:
        pytest.skip(f"{here.reason}: {here.hint}")
    try:
        case.platform.check(case.spec)
    except QwharfError as e:
        pytest.skip(f"not on this machine: {e}")
    return case
