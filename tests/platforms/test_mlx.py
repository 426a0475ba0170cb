"""What is peculiar to mlx-lm: what it is refused, and its options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_homes import install
from engine_process import spec_of

from qwharf.errors import QwharfError
from qwharf.platforms.mlx import Mlx
from qwharf.testing import TINY
from qwharf.types import DeploymentSpec, Format

PLATFORM = Mlx()
BF16 = Format("safetensors", "bf16")


def tiny(tiny_gguf: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {"platform": "mlx", "format": BF16, "kv_cache_type": "bf16"}
    return spec_of(tiny_gguf.parent / "checkpoint", **wishes | fields)


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"format": Format("gguf", "q8_0")}, "gguf:q8_0"),
        ({"format": Format("safetensors", "awq")}, "safetensors:awq"),
        ({"kv_cache_type": "fp8"}, "fp8"),
        ({"kv_cache_type": "q8_0", "parallel": 2}, "2 with a cache of 8 bits"),
        ({"gpus": 2}, "2"),
        ({"adapters": {"law": Path("/law")}}, "law"),
    ],
)
def test_what_it_cannot_do_is_refused(
    fields: dict[str, Any],
    found: str,
    tiny_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, tmp_path, "mlx", "0.32.2", "cpu")
    PLATFORM.check(tiny(tiny_gguf))
    with pytest.raises(QwharfError) as e:
        PLATFORM.check(tiny(tiny_gguf, **fields))
    assert found in e.value.found
    assert e.value.hint


# ------------------------------------------------------------------------------------ options


def test_its_shape_is_stretched_by_the_least_factor(tiny_gguf: Path) -> None:
    spec = tiny(tiny_gguf, context_tokens=4096, architecture=TINY)
    argv = PLATFORM.launch(spec, 1).argv
    told = argv[argv.index("--rope-scaling") + 1]
    assert '"factor": 2.0' in told
    assert '"original_max_position_embeddings": 2048' in told
    assert "--rope-scaling" not in PLATFORM.launch(replace(spec, context_tokens=2048), 1).argv
