"""Errors of weights are those of the whole matrices, whatever both are stored as."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest

from qwharf.errors import InvalidFile, UsageError
from qwharf.fidelity import weights as module
from qwharf.fidelity.weights import compare_weights
from qwharf.inspection.kinds import place_of

from .models import changed, checkpoint, converted, stored, whole


@pytest.fixture(scope="module", params=["dense", "moe"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return checkpoint(folder / "source", moe=request.param == "moe")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("only") / "source")


def norm(values: np.ndarray) -> float:
    return math.sqrt(float((values.astype(np.float64) ** 2).sum()))


FORMATS = ("gguf:q4_k_m", "gguf:q8_0", "fp8", "awq", "gptq-int4", "w4a16", "w8a8", "mlx:4bit")


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("run", [512, 1 << 21])
def test_every_format_in_runs_of_rows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, run: int
) -> None:
    monkeypatch.setattr(module, "RUN_ELEMENTS", run)
    a, b = stored(source), stored(converted(source, tmp_path, text))
    found = compare_weights(a, b, threads=2)
    of_a, of_b = whole(a), whole(b)
    assert [m.name for m in found.matrices] == list(of_b)
    for m in found.matrices:
        difference = of_b[m.name] - of_a[m.name]
        assert m.relative == pytest.approx(norm(difference) / norm(of_a[m.name]), rel=1e-5)
        assert m.max_abs == np.abs(difference).max()
        assert m.elements == difference.size
    assert 0 < found.total.relative < 0.2
    for group in found.by_kind:
        names = [n for n in of_b if place_of(n).kind == group.name]
        wanted = math.sqrt(
            sum(norm(of_b[n] - of_a[n]) ** 2 for n in names)
            / sum(norm(of_a[n]) ** 2 for n in names)
        )
        assert group.relative == pytest.approx(wanted, rel=1e-5, abs=1e-12)
        assert group.matrices == len(names)
    assert sum(g.elements for g in found.by_kind) == found.total.elements
    assert len(found.by_layer) == a.arch.num_hidden_layers


@pytest.mark.parametrize("text", ["gguf:bf16", "safetensors:f32", "mlx:bf16"])
def test_the_same_bytes_in_another_container_have_no_error(
    source: Path, tmp_path: Path, text: str
) -> None:
    found = compare_weights(stored(source), stored(converted(source, tmp_path, text)))
    assert found.total.relative == 0
    assert found.total.max_abs == 0


def test_one_changed_tensor_is_the_only_error(dense: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    other = changed(dense, tmp_path / "changed", name, b"\0")
    found = compare_weights(stored(dense), stored(other))
    assert {m.name for m in found.matrices if m.relative} == {name}
    assert next(m.relative for m in found.matrices if m.name == name) == pytest.approx(1)
    assert [g.relative > 0 for g in found.by_layer] == [False, True]


def test_progress_reaches_the_whole(dense: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    compare_weights(stored(dense), stored(dense), progress=lambda *x: seen.append(x))
    assert seen[-1][1] == seen[-1][2]
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_not_a_number_is_named(dense: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    bad = changed(dense, tmp_path / "nan", name, struct.pack("<H", 0x7FC0))
    with pytest.raises(InvalidFile, match="NaN or infinite") as e:
        compare_weights(stored(dense), stored(bad))
    assert e.value.facts["tensor"] == name


def test_another_shape_is_refused(dense: Path, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other", layers=1)
    with pytest.raises(UsageError, match="num_hidden_layers 2 and 1"):
        compare_weights(stored(dense), stored(other))


def test_an_output_matrix_is_held_against_a_tied_embedding(dense: Path, tmp_path: Path) -> None:
    import json

    untied = checkpoint(tmp_path / "untied", lm_head=True)
    path = untied / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    found = compare_weights(stored(dense), stored(untied))
    assert any("output matrix of its own" in note for note in found.notes)
    assert next(m.relative for m in found.matrices if m.name == "lm_head.weight") > 1
    back = compare_weights(stored(untied), stored(dense))
    assert any("its embedding as the output" in note for note in back.notes)
