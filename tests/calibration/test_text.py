"""What may be calibrated on, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.calibration import read_text
from qwharf.calibration.text import SEQUENCE_TOKENS, Text, sequences
from qwharf.errors import InvalidFile, QwharfError, UsageError
from qwharf.formats.tokenizer import load_tokenizer

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_a_text_comes_with_qwharf(dense: Path) -> None:
    text = read_text("default")
    assert text.name == "default" and "<|im_start|>" in str(text.documents[0])
    found = sequences(text, dense)
    assert len(found) > 8 and {len(s) for s in found} == {SEQUENCE_TOKENS}
    whole = load_tokenizer(dense).encode(str(text.documents[0]))
    assert [t for s in found for t in s] == whole[: len(found) * SEQUENCE_TOKENS]
    assert sequences(text, dense, 5) == found[:5]


def test_a_file_of_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffEin Text, 一个文本\n".encode())
    assert read_text(str(path)) == Text(name="mine.txt", documents=("Ein Text, 一个文本\n",))


def test_lines_of_json(tmp_path: Path, dense: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps("plain"), json.dumps({"text": "of an object", "id": 3}), "", " "]
    path.write_text("\n".join([*lines, json.dumps({"messages": CHAT})] * 400), "utf-8")
    text = read_text(str(path))
    assert text.documents[:3] == ("plain", "of an object", CHAT)
    one = load_tokenizer(dense).encode("plain") + load_tokenizer(dense).encode("of an object")
    one += load_tokenizer(dense).encode("[user]Hi[assistant]Hello")
    assert sequences(text, dense)[0][: len(one)] == one


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.txt", b"", UsageError, "no text"),
        ("a.txt", b" \n\t", UsageError, "no text"),
        ("a.txt", "Grüße".encode("latin-1"), InvalidFile, "UTF-8"),
        ("a.txt", b"\xff\xfe" + "x".encode("utf-16-le"), InvalidFile, "UTF-8"),
        ("a.jsonl", b"\n\n", UsageError, "no text"),
        ("a.jsonl", b'"good"\nbad', InvalidFile, "line 2"),
        ("a.jsonl", b"3", InvalidFile, "line 1"),
        ("a.jsonl", b'{"prompt": "x"}', InvalidFile, "messages"),
        ("a.jsonl", b'{"messages": ["x"]}', InvalidFile, "messages"),
        ("a.jsonl", b"[" * 100_000, InvalidFile, "line 1"),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, name: str, content: bytes, error: type[QwharfError], says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error) as refused:
        read_text(str(tmp_path / name))
    assert says in str(refused.value) and refused.value.hint


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(InvalidFile):
            read_text(str(path))


def test_too_short_a_text_is_refused(dense: Path) -> None:
    with pytest.raises(UsageError) as refused:
        sequences(Text(name="short.txt", documents=("Hi. " * 40,)), dense)
    assert refused.value.subject == "short.txt" and "2,048" in refused.value.expected


def test_a_chat_needs_a_template(tmp_path: Path, dense: Path) -> None:
    text = Text(name="x.jsonl", documents=(CHAT,) * 900)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(dense / name, tmp_path / name)
    with pytest.raises(InvalidFile) as refused:
        sequences(text, tmp_path)
    assert "chat template" in refused.value.found


def test_half_a_character_is_no_reason_to_fail(tmp_path: Path, dense: Path) -> None:
    path = tmp_path / "half.jsonl"
    path.write_text('"\\ud83d and more"\n' * 900, "ascii")
    assert sequences(read_text(str(path)), dense)


@given(content=st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        assert read_text(str(path)).documents
    except QwharfError as e:
        assert e.found and e.expected
