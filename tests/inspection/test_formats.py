"""Every format that qwharf writes is seen for what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwharf.artifacts.convert import convert
from qwharf.codec import encode
from qwharf.formats.names import parse_format
from qwharf.inspection import Inspection, inspect

from .making import checkpoint

TARGETS = (
    "safetensors:bf16", "safetensors:f32", "safetensors:fp8", "safetensors:awq",
    "safetensors:gptq-int4", "safetensors:gptq-int8", "safetensors:w4a16", "safetensors:w8a8",
    "safetensors:fp8-channel", "mlx:4bit", "mlx:8bit", "gguf:bf16", "gguf:q8_0", "gguf:q4_k_m",
    "gguf:iq4_xs", "gguf:q3_k_m",
)  # fmt: skip
ORDINARY = {"another vocabulary than Qwen3's: 299 tokens"}


@pytest.fixture(scope="module", params=["dense", "moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return checkpoint(folder / "source", moe=request.param == "moe")


def look(path: Path) -> Inspection:
    found = inspect(path)
    json.dumps(encode(found))
    return found


@pytest.mark.parametrize("text", TARGETS)
def test_a_sound_model_shows_nothing_odd(model: Path, tmp_path: Path, text: str) -> None:
    format = parse_format(text)
    made = tmp_path / ("model.gguf" if format.container == "gguf" else "model")
    convert(model, format, made, threads=1)
    found = look(made)
    source = look(model)
    same_kind = found.format is not None and found.format.container == format.container
    assert same_kind, found.format
    if "w" not in format.quantization and "fp8-channel" not in format.quantization:
        assert found.format == format
    assert found.what == "model"
    assert {o.what for o in found.oddities} <= ORDINARY, found.oddities
    # Whatever it is stored as, it is the same model: the same matrices of the same shapes.
    if source.architecture is None or found.architecture is None:
        pytest.fail("no architecture")
    kinds = {g.name: g.shapes[0][-2:] for g in found.by_kind}
    assert kinds == {g.name: g.shapes[0][-2:] for g in source.by_kind}
    assert found.parameters == source.parameters
    assert found.size_bytes == sum(t.size_bytes for t in found.tensors)
    assert sum(g.size_bytes for g in found.by_type) == found.size_bytes
    assert sum(g.size_bytes for g in found.by_kind) == found.size_bytes
    assert sum(f.tensors for f in found.files) == len(found.tensors)
    assert found.template == source.template
    assert found.vocabulary is not None
    assert (found.vocabulary.tokens, found.vocabulary.rows) == (299, 320)
    assert found.needs[0].total_bytes >= found.needs[0].weight_bytes + found.needs[0].kv_bytes


def test_quantised_matrices_are_counted_once(model: Path, tmp_path: Path) -> None:
    convert(model, parse_format("awq"), tmp_path / "awq", threads=1)
    found = {g.name: g for g in look(tmp_path / "awq").by_kind}
    plain = {g.name: g for g in look(model).by_kind}
    assert found["attn_q"].matrices == plain["attn_q"].matrices
    assert found["attn_q"].tensors == 3 * found["attn_q"].matrices
    assert found["attn_q"].types == {"I32": found["attn_q"].matrices}


def test_layers_and_kinds_are_read_off_the_names(model: Path) -> None:
    found = look(model)
    assert {t.kind for t in found.tensors}.isdisjoint({"other"})
    last = max(t.layer for t in found.tensors if t.layer is not None)
    assert found.architecture is not None
    assert last == found.architecture.num_hidden_layers - 1
