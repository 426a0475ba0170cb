"""A checkpoint's own tokenizer, from a folder and from a GGUF file."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwharf.artifacts.convert import convert
from qwharf.errors import InvalidFile, QwharfError
from qwharf.formats.tokenizer import PATTERN, load_tokenizer
from qwharf.testing import TINY, write_synthetic_checkpoint
from qwharf.types import Format

from .bytes_by_hand import gguf, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_synthetic_checkpoint(TINY, folder, vocab="tiny", layers=1, chat_template="x")
    return folder


@pytest.fixture(scope="module")
def gguf_file(folder: Path) -> Path:
    out = folder.parent / "tokenizer.gguf"
    convert(folder, Format("gguf", "bf16"), out)
    return out


TEXTS = ["", " ", "the thing", "The  other\n\nöne", "日本 🎉 'll don't 1234", "<think>\nx</think>"]
TEXTS += ["<|im_start|>user\nHi<|im_end|>", "\0\r\n\t", "e\u0301", "re" * 50]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(TEXTS) | st.text())
def test_folder_and_gguf_agree(folder: Path, gguf_file: Path, text: str) -> None:
    one, other = load_tokenizer(folder), load_tokenizer(gguf_file)
    ids = one.encode(text)
    assert other.encode(text) == ids
    assert one.decode(ids) == other.decode(ids)


def test_added_tokens_are_single(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("<|im_start|>the<think></tool_call>")
    assert len(ids) == 4 and ids[0] == tokenizer.token_id("<|im_start|>")
    assert tokenizer.decode(ids) == "<|im_start|>the<think></tool_call>"
    assert tokenizer.token_id("no such token") is None


def changed(folder: Path, out: Path, change: Any) -> Path:
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    change(data)
    (out / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    return out


CHANGES: dict[str, Any] = {
    "another model": lambda d: d["model"].update(type="Unigram"),
    "no model": lambda d: d.pop("model"),
    "byte fallback": lambda d: d["model"].update(byte_fallback=True),
    "vocabulary a list": lambda d: d["model"].update(vocab=[]),
    "ids as texts": lambda d: d["model"].update(vocab={"a": "1"}),
    "merges unknown": lambda d: d["model"].update(merges=[["qq", "zz"]]),
    "merges no pairs": lambda d: d["model"].update(merges=[["q"]]),
    "another pattern": lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(
        pattern={"Regex": "(a+)+$"}
    ),
    "no pre-tokenizer": lambda d: d.pop("pre_tokenizer"),
    "bytes only": lambda d: d.update(pre_tokenizer={"type": "ByteLevel", "use_regex": True}),
    "a normalizer": lambda d: d.update(normalizer={"type": "Lowercase"}),
    "deep": lambda d: (
        d.update(normalizer={"type": "Sequence", "normalizers": [[[[[]]]]]}, added=1)
        or d["model"].update(type=None)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_tokenizers_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        load_tokenizer(changed(folder, tmp_path, CHANGES[name]))
    assert "tokenizer.json" in caught.value.subject and len(str(caught.value)) < 1000


def test_no_normalizer_and_nfc_are_fine(folder: Path, tmp_path: Path) -> None:
    for normalizer in (
        None,
        {"type": "NFC"},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    ):
        load_tokenizer(changed(folder, tmp_path, lambda d, n=normalizer: d.update(normalizer=n)))


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for raw in (b"", b"{}", b"[]", b"[" * 10**5, b"\xff", b'{"model": {"type": "BPE"}}', b"null"):
        path.write_bytes(raw)
        with pytest.raises(InvalidFile):
            load_tokenizer(tmp_path)
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidFile, match="at most"):
        load_tokenizer(tmp_path)
    path.unlink()
    with pytest.raises(InvalidFile, match="no file"):
        load_tokenizer(tmp_path)
    os.mkfifo(path)
    with pytest.raises(InvalidFile):
        load_tokenizer(tmp_path)


TOKENS = ["a", "b", "ab", "<|x|>"]
PARTS = {
    "tokenizer.ggml.model": ("str", "gpt2"),
    "tokenizer.ggml.pre": ("str", "qwen2"),
    "tokenizer.ggml.tokens": ("[str]", TOKENS),
    "tokenizer.ggml.token_type": ("[i32]", [1, 1, 1, 3]),
    "tokenizer.ggml.merges": ("[str]", ["a b"]),
}


def test_a_gguf_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([key(k, *v) for k, v in PARTS.items()], [], b""))
    assert load_tokenizer(path).encode("ab<|x|>ba") == [2, 3, 1, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer.ggml.pre": ("str", "llama-bpe")},
        {"tokenizer.ggml.pre": ("[str]", ["qwen2"])},
        {"tokenizer.ggml.model": ("str", "llama")},
        {"tokenizer.ggml.tokens": ("[u32]", [1])},
        {"tokenizer.ggml.tokens": ("str", "ab")},
        {"tokenizer.ggml.merges": ("[str]", ["ab"])},
        {"tokenizer.ggml.merges": ("[str]", ["a q"])},
        {"tokenizer.ggml.token_type": ("u32", 5)},
        {"tokenizer.ggml.token_type": ("[str]", ["3"])},
        {"tokenizer.ggml.token_type": ("[i32]", [3] * 9)},
        {"tokenizer.ggml.tokens": ("[str]", ["a", "b", "ab", "a"])},
    ],
)
def test_a_bad_gguf_vocabulary(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([key(k, *v) for k, v in (PARTS | change).items()], [], b""))
    with pytest.raises(InvalidFile):
        load_tokenizer(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.text(max_size=3), max_size=6),
    st.lists(st.text(max_size=5), max_size=4),
    st.lists(st.integers(-1, 6), max_size=7),
)
def test_wild_vocabularies(tmp_path: Path, tokens: Any, merges: Any, types: Any) -> None:
    parts = PARTS | {
        "tokenizer.ggml.tokens": ("[str]", tokens),
        "tokenizer.ggml.merges": ("[str]", merges),
        "tokenizer.ggml.token_type": ("[i32]", types),
    }
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf([key(k, *v) for k, v in parts.items()], [], b""))
    with contextlib.suppress(QwharfError):
        load_tokenizer(path).encode("ab")


def test_the_pattern_cuts_as_published() -> None:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    pieces = [p for p, _ in split.pre_tokenize_str("I'll  pay 123€\n\nok?!")]
    assert pieces == ["I", "'ll", " ", " pay", " ", "1", "2", "3", "€\n\n", "ok", "?!"]
