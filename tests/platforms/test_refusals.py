"""What an engine in an environment of its own would refuse, ignore or die of is refused before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import Weights, case_of
from engine_homes import install

from qwharf.errors import QwharfError
from qwharf.types import Format

VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.23", "mlx": "0.32.2"}
GGUF, MLX = Format("gguf", "q8_0"), Format("mlx", "4bit")
AWQ, W8A8 = Format("safetensors", "awq"), Format("safetensors", "w8a8")
LORA = {"law": Path("/law")}
MISSING = "/law/adapter_config.json"

REFUSED: dict[str, list[tuple[str, dict[str, Any], str]]] = {
    "vllm": [
        ("cpu", {"gpus": 1}, "built for processors"),
        ("cuda", {"gpus": 0}, "built for cuda"),
        ("cpu", {"kv_cache_type": "fp8"}, "fp8 on a processor"),
        ("cpu", {"kv_cache_type": "q8_0"}, "q8_0"),
        ("cpu", {"format": GGUF}, "gguf:q8_0"),
        ("cpu", {"format": MLX}, "mlx:4bit"),
        ("cuda", {"gpus": 3}, "3 slices of 4 heads"),
        ("cuda", {"gpus": 1, "cpu_moe_layers": -1}, "-1"),
        ("cpu", {"gpu_layers": 4}, "4"),
        ("cpu", {"adapters": LORA}, MISSING),
    ],
    "sglang": [
        ("cuda", {"gpus": 0}, "none"),
        ("unknown", {"gpus": 0}, "none"),
        ("cpu", {"format": W8A8}, "w8a8 on a processor"),
        ("cpu", {"adapters": LORA}, "law"),
        ("cpu", {"kv_cache_type": "fp8"}, "fp8"),
        ("cuda", {"gpus": 1, "format": GGUF}, "gguf:q8_0"),
        ("cuda", {"gpus": 8}, "8 slices of 4 heads"),
        ("cuda", {"gpus": 1, "context_tokens": 8193}, "8,193"),
        ("cuda", {"gpus": 1, "adapters": LORA}, MISSING),
    ],
    "mlx": [
        ("cpu", {"format": GGUF}, "gguf:q8_0"),
        ("cpu", {"format": AWQ}, "safetensors:awq"),
        ("cpu", {"kv_cache_type": "fp8"}, "fp8"),
        ("cpu", {"kv_cache_type": "q8_0", "parallel": 2}, "2 with a cache of 8 bits"),
        ("cpu", {"gpus": 2}, "2"),
        ("cpu", {"adapters": LORA}, "law"),
    ],
}


@pytest.mark.parametrize(
    ("platform", "variant", "fields", "found"),
    [(platform, *row) for platform, rows in REFUSED.items() for row in rows],
)
def test_what_it_would_die_of_is_refused(
    platform: str,
    variant: str,
    fields: dict[str, Any],
    found: str,
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, tmp_path, platform, VERSIONS[platform], variant)
    case = case_of(platform, weights)
    case.platform.check(replace(case.spec, gpus=1 if variant in ("cuda", "unknown") else 0))
    with pytest.raises(QwharfError) as e:
        case.platform.check(replace(case.spec, **fields))
    assert found in f"{e.value.subject} {e.value.found}"
    assert e.value.hint
