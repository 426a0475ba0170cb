"""On a real model the expected order appears, and the engine agrees with the forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwharf.catalog.pocket import FOLDER
from qwharf.errors import EngineError, InvalidFile, UsageError
from qwharf.fidelity import Subject, compare_outputs, compare_weights
from qwharf.fidelity.predictions import log_softmax, measure
from qwharf.fidelity.report import OutputErrors
from qwharf.fidelity.through_engine import EngineLogits, check_size
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.forward import logits
from qwharf.texts import text

from .models import changed, converted, stored

ORDER = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
TEXT = text("evaluation")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pocket")
    return {q: converted(FOLDER, folder, f"gguf:{q}") for q in (*ORDER, "bf16")}


def against(path: Path, *, tokens: int, engine: bool = False) -> OutputErrors:
    a, b = Subject.read(FOLDER), Subject.read(path)
    return compare_outputs(a, b, TEXT, "text", tokens=tokens, engine=engine)


def test_fewer_bits_are_further_away(made: dict[str, Path]) -> None:
    ids = load_tokenizer(FOLDER).encode(TEXT)[:192]
    reference = list(logits(FOLDER, [ids]))
    found = [measure([ids], reference, logits(made[q], [ids]), 1797) for q in ORDER]
    weights = [compare_weights(stored(FOLDER), stored(made[q])) for q in ORDER]
    for values in (
        [float(f.divergences.mean()) for f in found],
        [f.quantile(0.5) for f in found],
        [f.quantile(0.99) for f in found],
        [w.total.relative for w in weights],
    ):
        assert values == sorted(values)
        assert len(set(values)) == len(ORDER)
    assert found[0].divergences.mean() < 0.001
    assert found[0].same_top_1 > 0.95 > 0.8 > found[-1].same_top_1
    assert len({f.perplexity_a for f in found}) == 1


def test_the_same_weights_predict_the_same(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwharf.fidelity.CHUNK_TOKENS", 32)
    found = against(made["bf16"], tokens=65)
    assert found.kl_max == 0
    assert found.through == ("forward", "forward")
    # Nothing follows a piece's last token, and from a piece of one token nothing can be told.
    assert (found.tokens, found.predictions, found.chunk_tokens) == (64, 62, 32)


@pytest.mark.engines
@pytest.mark.parametrize("quantization", ["bf16", "q8_0", "q4_k_m"])
def test_the_engine_agrees(made: dict[str, Path], quantization: str) -> None:
    path = made[quantization]
    ids = load_tokenizer(path).encode(TEXT)[:20]
    ours = log_softmax(next(iter(logits(path, [ids]))))
    with EngineLogits(path, vocabulary=1797, context_tokens=20) as engine:
        (theirs,) = engine.logits([ids])
    # The engine rounds what goes into a matrix of few bits to eight bits itself.
    nearness = 0.1 if quantization == "bf16" else 0.5
    assert abs(ours[:-1] - theirs[:-1]).max() < nearness
    assert abs(ours[:-1] - theirs[:-1]).mean() < nearness / 5


@pytest.mark.engines
def test_through_the_engine(made: dict[str, Path]) -> None:
    near, far = (against(made[q], tokens=20, engine=True) for q in ("q8_0", "q2_k"))
    assert near.through == ("forward", "llama.cpp")
    assert near.kl_mean < far.kl_mean
    assert near.kl_mean < 0.02
    direct = against(made["q2_k"], tokens=20)
    assert far.kl_mean == pytest.approx(direct.kl_mean, rel=0.25)


@pytest.mark.engines
def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    with (
        pytest.raises(EngineError, match="could not start"),
        EngineLogits(broken, vocabulary=10, context_tokens=8),
    ):
        pass


def test_a_vocabulary_too_large_for_the_engine_is_refused() -> None:
    check_size(1797, 2048)
    with pytest.raises(UsageError, match="151,936") as e:
        check_size(151_936, 2048)
    assert "--tokens 131" in e.value.hint


def test_texts_that_cannot_be_used(made: dict[str, Path]) -> None:
    a, b = Subject.read(FOLDER), Subject.read(made["q8_0"])
    with pytest.raises(UsageError, match="0 tokens"):
        compare_outputs(a, b, "", "nothing")
    with pytest.raises(UsageError, match="1 tokens"):
        compare_outputs(a, b, TEXT, "one", tokens=1)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    import json

    other = changed(FOLDER, tmp_path / "other", "none", b"")
    path = other / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    data["model"]["merges"] = data["model"]["merges"][:40]
    path.write_text(json.dumps(data), "utf-8")
    a, b = Subject.read(FOLDER), Subject.read(other)
    with pytest.raises(UsageError, match="reads text differently"):
        compare_outputs(a, b, TEXT, "text", tokens=16)
    path.unlink()  # without one, A's is used
    assert compare_outputs(a, b, TEXT, "text", tokens=16).kl_max == 0


def test_weights_that_give_no_numbers(tmp_path: Path) -> None:
    import struct

    name = "model.layers.0.mlp.up_proj.weight"
    bad = changed(FOLDER, tmp_path / "bad", name, struct.pack("<H", 0x7F80))
    a, b = Subject.read(FOLDER), Subject.read(bad)
    with pytest.raises(InvalidFile, match="not finite"):
        compare_outputs(a, b, TEXT, "text", tokens=16)
