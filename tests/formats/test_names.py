"""Formats by the names people use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.errors import UsageError
from qwharf.formats.ggml_types import FILE_TYPES
from qwharf.formats.names import ALIASES, FORMATS, parse_format


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gguf:q4_k_m", "gguf:q4_k_m"),
        ("Q4_K_M", "gguf:q4_k_m"),
        ("q4-k-m", "gguf:q4_k_m"),
        (" GGUF:Q8_0 ", "gguf:q8_0"),
        ("gguf", "gguf:q4_k_m"),
        ("fp8", "safetensors:fp8"),
        ("AWQ", "safetensors:awq"),
        ("gptq-int4", "safetensors:gptq-int4"),
        ("mlx-4bit", "mlx:4bit"),
        ("mlx", "mlx:4bit"),
        ("bf16", "safetensors:bf16"),
        ("gguf:bf16", "gguf:bf16"),
        ("gguf-fp16", "gguf:f16"),
        ("MXFP4_MOE", "gguf:mxfp4_moe"),
        ("iq4_xs", "gguf:iq4_xs"),
        ("q4km", "gguf:q4_k_m"),
        ("mlx:4", "mlx:4bit"),
        ("mlx8", "mlx:8bit"),
        ("mlx:6-g128", "mlx:6bit-g128"),
        ("gptq", "safetensors:gptq-int4"),
        ("gptq8", "safetensors:gptq-int8"),
        ("W4A16", "safetensors:w4a16"),
    ],
)
def test_spellings(text: str, name: str) -> None:
    assert str(parse_format(text)) == name


def test_every_format_by_its_own_name() -> None:
    for known in FORMATS:
        assert parse_format(str(known)) == parse_format(str(known).upper()) == known
    assert set(ALIASES.values()) <= FORMATS.keys()
    assert {f.quantization for f in FORMATS if f.container == "gguf"} == FILE_TYPES.keys()


@pytest.mark.parametrize(
    ("text", "suggestion"), [("q4_k_n", "gguf:q4_k_m"), ("gguf:q8", "gguf:q8_0"), ("awk", "awq")]
)
def test_a_misspelling_gets_suggestions(text: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_format(text)
    assert any(suggestion in s for s in caught.value.facts["suggestions"])
    assert "did you mean" in caught.value.hint


def test_nonsense_gets_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        parse_format("//////")
    assert "q4_k_m" in caught.value.expected and "docs/formats.md" in caught.value.hint


@given(st.text() | st.text(min_size=1).map(lambda t: t * 3000))
def test_anything_is_a_format_or_refused(text: str) -> None:
    try:
        assert parse_format(text) in FORMATS
    except UsageError as e:
        assert len(e.subject) <= 64
