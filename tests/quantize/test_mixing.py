"""Types and sizes by quantisation, against what llama.cpp's own program said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwharf.errors import UsageError
from qwharf.formats.ggml_types import FILE_TYPES
from qwharf.quantize.mixing import MIXES, Place, mix_of, more_bits, tensor_types
from qwharf.quantize.sizes import file_size

from .record_golden import digest
from .shapes import QWEN3

HERE = Path(__file__).parent
TYPES: dict[str, dict[str, Any]] = json.loads((HERE / "golden/types.json").read_text("utf-8"))


@pytest.mark.parametrize("model", QWEN3)
def test_types_are_those_of_llama_quantize(model: str) -> None:
    """Every tensor of every mix, as a dry run of the program listed them."""
    for name, recorded in TYPES[model].items():
        found = {spec.name: kind.name for spec, kind in tensor_types(QWEN3[model], name)}
        assert digest(found) == recorded, name
    assert len(TYPES[model]) >= 25


def rows() -> list[tuple[str, str, str]]:
    lines = (HERE / "gguf_sizes.txt").read_text("utf-8").splitlines()
    head, *body = [line.split() for line in lines if not line.startswith("#")]
    return [
        (row[0], model, size)
        for row in body
        for model, size in zip(head[1:], row[1:], strict=True)
        if size != "-"
    ]


def test_file_sizes_are_the_measured_ones() -> None:
    """To the digits given; the headers then had up to 30 kB more metadata."""
    for quantization, model, size in rows():
        found = file_size(QWEN3[model], quantization)
        assert abs(found - float(size) * 1e9) < 530_000, (quantization, model, size, found)
    assert len(rows()) == 25 * 8 + 2


OFFICIAL = {
    ("0.6B", "q8_0"): 639_446_688,
    ("1.7B", "q8_0"): 1_834_426_016,
    ("4B", "q4_k_m"): 2_497_280_256,
    ("8B", "q4_k_m"): 5_027_783_488,
    ("8B", "q5_0"): 5_720_761_152,
    ("8B", "q5_k_m"): 5_851_112_224,
    ("8B", "q6_k"): 6_725_899_040,
    ("8B", "q8_0"): 8_709_518_112,
    ("14B", "q4_k_m"): 9_001_752_960,
    ("32B", "q4_k_m"): 19_762_149_024,
    ("30B-A3B", "q4_k_m"): 18_556_685_824,
}
"""Published files of Qwen's own."""


@pytest.mark.parametrize(("model", "quantization"), OFFICIAL)
def test_published_sizes(model: str, quantization: str) -> None:
    """Names in the metadata differ by a few bytes, and all is padded to 32."""
    found = file_size(QWEN3[model], quantization)
    assert abs(found - OFFICIAL[model, quantization]) <= 160
    if model in ("0.6B", "1.7B", "4B"):
        assert found == OFFICIAL[model, quantization]


def test_layers_that_get_more_bits() -> None:
    def layers(count: int) -> list[int]:
        return [
            i for i in range(count) if more_bits(Place(layer=i, layers=count, group=2, experts=0))
        ]

    assert [len(layers(n)) for n in (28, 36, 40, 48, 64, 94)] == [14, 18, 20, 24, 32, 46]
    assert layers(36) == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 31, 32, 33, 34, 35]


def test_ids() -> None:
    assert {name: mix.file_type for name, mix in MIXES.items()} == FILE_TYPES


def test_names() -> None:
    assert mix_of("Q4_K_M") is MIXES["q4_k_m"]
    with pytest.raises(UsageError, match="q9"):
        mix_of("q9")
