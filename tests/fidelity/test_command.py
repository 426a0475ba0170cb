"""``qwharf fidelity`` and ``qwharf inspect`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwharf.catalog.pocket import FOLDER
from qwharf.cli.main import main

from .models import converted


@pytest.fixture(scope="module")
def q4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(FOLDER, tmp_path_factory.mktemp("command"), "gguf:q4_k_m")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(e.value.code or 0), out, err


def json_of(capsys: pytest.CaptureFixture[str], *argv: object) -> Any:
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0, out
    return json.loads(out)


def test_fidelity_in_json(capsys: pytest.CaptureFixture[str], q4: Path) -> None:
    found = json_of(capsys, "fidelity", "pocket", q4, "--tokens", "40")
    assert list(found) == ["a", "b", "weights", "outputs"]
    assert found["a"]["format"] == "safetensors:bf16"
    assert found["b"]["format"] == "gguf:q4_k_m"
    assert found["b"]["bits_per_weight"] == pytest.approx(5.05, abs=0.1)
    assert 0.01 < found["weights"]["total"]["relative"] < 0.1
    assert len(found["weights"]["by_layer"]) == 5
    assert found["outputs"]["predictions"] == 39
    assert 0 < found["outputs"]["kl_mean"] < 1
    assert found["outputs"]["through"] == ["forward", "forward"]


def test_fidelity_for_a_person(
    capsys: pytest.CaptureFixture[str], q4: Path, tmp_path: Path
) -> None:
    text = tmp_path / "some.txt"
    text.write_text("What is 3 plus 4?\n" * 8)
    plot = tmp_path / "error.svg"
    code, out, _ = run(capsys, "fidelity", "pocket", q4, "--text", text, "--plot", plot)
    assert code == 0
    for part in ("relative error", "attn_q", "layers", "KL divergence", "perplexity", "some.txt"):
        assert part in out
    assert "forward pass" in out
    assert plot.read_text().startswith("<svg")


def test_weights_only(capsys: pytest.CaptureFixture[str], q4: Path) -> None:
    assert json_of(capsys, "fidelity", "pocket", q4, "--weights-only")["outputs"] is None
    _, out, _ = run(capsys, "fidelity", "pocket", q4, "--weights-only")
    assert "KL divergence" not in out


def test_bad_arguments(capsys: pytest.CaptureFixture[str], q4: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\xfe\xff")
    for code, argv in (
        (3, ["fidelity", "pocket", "nothing"]),
        (3, ["fidelity", "pocket", "./nothing"]),
        (4, ["fidelity", "pocket", bad]),
        (4, ["fidelity", "pocket", q4, "--text", bad]),
        (2, ["fidelity", "pocket", q4, "--plot", "error.pdf"]),
        (2, ["fidelity", "pocket", q4, "--text", tmp_path / "absent.txt"]),
        (2, ["fidelity", "pocket"]),
    ):
        assert run(capsys, *argv)[0] == code, argv


# -------------------------------------------------------------------------------------- inspect


def test_inspect_in_json(capsys: pytest.CaptureFixture[str], q4: Path) -> None:
    found = json_of(capsys, "inspect", q4)
    assert found["format"] == "gguf:q4_k_m"
    assert found["tensors"] == []
    assert found["template"]["kind"] == "Qwen3 hybrid"
    assert len(json_of(capsys, "inspect", q4, "--tensors")["tensors"]) == 57


def test_inspect_for_a_person(capsys: pytest.CaptureFixture[str], q4: Path) -> None:
    _, out, _ = run(capsys, "inspect", q4, "--tensors", "--metadata")
    for part in (
        "gguf:q4_k_m", "Qwen3 hybrid's, exact in 13 conversations", "blk.3.ffn_down.weight",
        "general.architecture", "KV cache", "another vocabulary",
    ):  # fmt: skip
        assert part in out


def test_names_of_the_store(capsys: pytest.CaptureFixture[str], q4: Path) -> None:
    taken = json_of(capsys, "store", "import", q4, "--as", "pocket")
    assert json_of(capsys, "inspect", "pocket:q4_k_m")["format"] == "gguf:q4_k_m"
    assert json_of(capsys, "inspect", taken["id"][:12])["name"] == "pocket"
    assert json_of(capsys, "inspect", "pocket")["format"] == "safetensors:bf16"
    code, _, err = run(capsys, "inspect", "pocket:q8_0")
    assert code == 3
    assert "qwharf pull" in err


def test_a_name_of_ones_own(capsys: pytest.CaptureFixture[str], q4: Path, tmp_path: Path) -> None:
    mine = tmp_path / "my-model-Q4_K_M.gguf"
    mine.write_bytes(q4.read_bytes())
    json_of(capsys, "store", "import", mine)
    assert json_of(capsys, "inspect", "my-model-Q4_K_M")["format"] == "gguf:q4_k_m"


def test_texts_from_outside_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from qwharf.formats.safetensors import SafetensorsWriter

    path = tmp_path / "odd.safetensors"
    with SafetensorsWriter(path, [("a\x1b[31m", "F32", (1,))]) as file:
        file.write(bytes(4))
    code, out, _ = run(capsys, "inspect", path, "--tensors")
    assert code == 0
    assert "\x1b" not in out
