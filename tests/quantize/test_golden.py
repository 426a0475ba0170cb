"""Conversion against the recorded output of ``llama-quantize``, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwharf.artifacts.convert import TARGETS, convert
from qwharf.formats.gguf import read_gguf
from qwharf.types import Format

from .golden_cases import CASES, checkpoint, sha256, tensor_hashes

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden/tensors.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("golden")
    return {case: checkpoint(case, folder) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_the_source_is_the_recorded_one(checkpoints: dict[str, Path], case: str) -> None:
    assert sha256(checkpoints[case] / "model.safetensors") == RECORDED[case]["safetensors"]


@pytest.mark.parametrize(
    ("case", "quantization"), [(c, q) for c, r in RECORDED.items() for q in r["made"]]
)
def test_as_llama_quantize_makes_it(
    checkpoints: dict[str, Path], tmp_path: Path, case: str, quantization: str
) -> None:
    out = tmp_path / "out.gguf"
    convert(checkpoints[case], Format("gguf", quantization), out)
    recorded = RECORDED[case]["made"][quantization]
    assert tensor_hashes(read_gguf(out)) == recorded["tensors"]
    assert sha256(out) == recorded["file"]


def test_all_targets_are_recorded() -> None:
    recorded = {q for r in RECORDED.values() for q in r["made"]}
    assert recorded == TARGETS - {"f32", "f16"}


def test_by_way_of_a_gguf_it_is_the_same(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for case in ("dense", "moe"):
        bf16, out = tmp_path / "bf16.gguf", tmp_path / "out.gguf"
        convert(checkpoints[case], Format("gguf", "bf16"), bf16)
        assert sha256(bf16) == RECORDED[case]["bf16"]
        convert(bf16, Format("gguf", "q4_k_m"), out)
        assert sha256(out) == RECORDED[case]["made"]["q4_k_m"]["file"]
