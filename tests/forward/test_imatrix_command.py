"""``qwharf imatrix`` as a user runs it, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from models_at_hand import CHUNK, TEXT

from qwharf.cli.main import main
from qwharf.quantize.imatrix import read


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "ours.txt"
    path.write_text(TEXT, "utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["imatrix", *map(str, argv)])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_of_a_text_of_ones_own(
    dense: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made.gguf"
    code, shown, _ = run(capsys, dense, "--text", text, "--chunk", CHUNK, "-o", out, "--json")
    assert code == 0
    facts: dict[str, Any] = json.loads(shown)
    made = read(out)
    assert facts["tensors"] == len(made.entries) == 14
    assert facts["chunks"] == made.chunks > 1
    assert facts["chunk_tokens"] == made.chunk_tokens == CHUNK
    assert made.datasets == (facts["text"],) == ("ours.txt",)
    assert facts["size_bytes"] == out.stat().st_size
    assert facts["unseen_experts"] == {}


def test_the_older_form_lands_beside_the_caller(
    dense: Path,
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, _ = run(capsys, dense, "--text", text, "--chunk", CHUNK, "--form", "dat")
    assert code == 0
    assert shown.startswith("dense.imatrix.dat: 14 tensors")
    assert len(read(tmp_path / "dense.imatrix.dat").entries) == 14


def test_experts_that_saw_nothing_are_told_of(
    moe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "same.txt"
    same.write_text("a" * 40, "utf-8")
    code, shown, err = run(
        capsys, moe, "--text", same, "--chunk", 16, "-o", tmp_path / "x", "--json"
    )
    assert code == 0
    unseen = json.loads(shown)["unseen_experts"]
    assert unseen and all(".ffn_" in name for name in unseen)
    assert "saw no token" in err


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(b"too short", 2, "one chunk"), (b"caf\xe9 " * 200, 4, "UTF-8"), (b"", 2, "one chunk")],
)
def test_a_text_that_will_not_do(
    dense: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    code: int,
    said: str,
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(content)
    found, _, err = run(capsys, dense, "--text", bad, "-o", tmp_path / "x")
    assert found == code
    assert said in err
    assert not (tmp_path / "x").exists()


def test_the_text_that_comes_along_is_long_enough(
    dense: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, _ = run(capsys, dense, "-o", tmp_path / "x", "--json")
    assert code == 0
    facts = json.loads(shown)
    assert facts["text"] == "calibration.txt"
    assert facts["chunks"] > 20
