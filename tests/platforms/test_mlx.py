"""What is peculiar to mlx-lm: what it is refused, and its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_process import spec_of

from qwharf.platforms.mlx import Mlx
from qwharf.testing import TINY
from qwharf.types import DeploymentSpec, Format

PLATFORM = Mlx()
BF16 = Format("safetensors", "bf16")


def tiny(tiny_gguf: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {"platform": "mlx", "format": BF16, "kv_cache_type": "bf16"}
    return spec_of(tiny_gguf.parent / "checkpoint", **wishes | fields)


# ------------------------------------------------------------------------------------ options


def test_its_shape_is_stretched_by_the_least_factor(tiny_gguf: Path) -> None:
    spec = tiny(tiny_gguf, context_tokens=4096, architecture=TINY)
    argv = PLATFORM.launch(spec, 1).argv
    told = argv[argv.index("--rope-scaling") + 1]
    assert '"factor": 2.0' in told
    assert '"original_max_position_embeddings": 2048' in told
    assert "--rope-scaling" not in PLATFORM.launch(replace(spec, context_tokens=2048), 1).argv
