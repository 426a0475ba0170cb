"""Conversion with an importance matrix, byte for byte as ``llama-quantize --imatrix`` does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwharf.artifacts.convert import convert
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.quantize.imatrix import read
from qwharf.types import Format

from .golden_cases import sha256
from .imatrix_files import SEED, SHAPES, checkpoint, importance, recorded_keys

RECORDED: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "golden/imatrix.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each case: its checkpoint, and its importance matrix in both forms."""
    folders = {case: tmp_path_factory.mktemp(case) for case in SHAPES}
    for case, folder in folders.items():
        checkpoint(case, folder)
    return folders


@pytest.mark.parametrize(("case", "key"), [(c, k) for c, made in RECORDED.items() for k in made])
def test_as_llama_quantize_makes_it(
    made: dict[str, Path], tmp_path: Path, case: str, key: str
) -> None:
    quantization, _, form = key.partition(" from .")
    matrix = read(made[case] / f"{case}.{form or 'gguf'}")
    out = tmp_path / "out.gguf"
    convert(made[case] / f"Qwen3-{case}", Format("gguf", quantization), out, importance=matrix)
    assert sha256(out) == RECORDED[case][key]


def test_by_way_of_a_gguf_it_is_the_same(made: dict[str, Path], tmp_path: Path) -> None:
    bf16, out = tmp_path / "bf16.gguf", tmp_path / "out.gguf"
    convert(made["moe"] / "Qwen3-moe", Format("gguf", "bf16"), bf16)
    convert(bf16, Format("gguf", "q4_k_m"), out, importance=read(made["moe"] / "moe.gguf"))
    assert sha256(out) == RECORDED["moe"]["q4_k_m"]


def test_every_quantisation_is_recorded() -> None:
    assert {c: sorted(made) for c, made in RECORDED.items()} == {
        case: sorted(recorded_keys(case)) for case in SHAPES
    }


def test_a_tensor_that_needs_importances_and_has_none_stops_it(
    made: dict[str, Path], tmp_path: Path
) -> None:
    lacking: Any = importance(SHAPES["dense"], SEED, ("blk.4.ffn_up.weight",))
    target = Format("gguf", "iq2_xxs")
    with pytest.raises(FormatUnavailable, match="seeded") as caught:
        convert(made["dense"] / "Qwen3-dense", target, tmp_path / "x.gguf", importance=lacking)
    assert caught.value.facts["tensor"] == "blk.4.ffn_up.weight"
    assert not list(tmp_path.iterdir())


def test_the_matrix_of_another_model_stops_it(made: dict[str, Path], tmp_path: Path) -> None:
    other = importance(SHAPES["odd"], SEED)
    target = Format("gguf", "q4_k_m")
    with pytest.raises(InvalidFile, match="seeded"):
        convert(made["dense"] / "Qwen3-dense", target, tmp_path / "x.gguf", importance=other)
    assert not list(tmp_path.iterdir())
