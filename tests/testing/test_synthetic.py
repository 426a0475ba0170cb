"""Synthetic checkpoints: shape, determinism, and a tokenizer that is Qwen's own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwharf import catalog
from qwharf.errors import InvalidFile, StorageError, UsageError
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.testing import TINY, TINY_MOE, config_json, write_synthetic_checkpoint
from qwharf.testing.vocabulary import ADDED, Tokens, derive_merges, tokenizer_json, vocabulary


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("arch", [TINY, TINY_MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_the_folder_is_read_back(tmp_path: Path, arch: object, dtype: str) -> None:
    made = write_synthetic_checkpoint(
        arch,
        tmp_path,
        vocab="tiny",
        dtype=dtype,
        chat_template="t",
        shard_bytes=500_000,
    )
    found = read_checkpoint(tmp_path)
    assert found.architecture == made.architecture and found.chat_template == "t"
    assert str(found.format) == f"safetensors:{dtype}"
    assert found.weight_files == made.weight_files and len(made.weight_files) > 1
    specs = checkpoint_tensors(made.architecture)
    assert {n: e.shape for n, (_, e) in found.tensors.items()} == {s.name: s.shape for s in specs}
    assert made.parameters == sum(s.elements for s in specs)


def test_weights_are_sane(tmp_path: Path) -> None:
    write_synthetic_checkpoint(TINY, tmp_path, vocab="tiny", dtype="f32", chat_template="t")
    found = read_checkpoint(tmp_path)
    for name, (path, _) in found.tensors.items():
        values = np.frombuffer(b"".join(found.files[path].chunks(name)), np.float32)
        if "norm" in name:
            assert (values == 1).all()
        else:
            assert abs(values.mean()) < 1e-3 and abs(values.std() - 0.02) < 1e-3
            assert np.abs(values).max() < 0.1


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    def make(name: str, seed: int, shard_bytes: int = 10**9) -> dict[str, str]:
        folder = tmp_path / name
        write_synthetic_checkpoint(
            TINY, folder, seed=seed, vocab="tiny", chat_template="t", shard_bytes=shard_bytes
        )
        return hashes(folder)

    one = make("a", 1)
    assert make("b", 1) == one and make("a", 1) == one
    assert make("c", 2)["model.safetensors"] != one["model.safetensors"]
    sharded = make("a", 1, 400_000)
    assert "model.safetensors" not in sharded and "model.safetensors.index.json" in sharded
    assert make("a", 1) == one  # and the shards are gone


def test_the_bytes_of_a_tensor_do_not_depend_on_sharding(tmp_path: Path) -> None:
    for name, limit in (("one", 10**9), ("many", 300_000)):
        write_synthetic_checkpoint(
            TINY, tmp_path / name, vocab="tiny", chat_template="t", shard_bytes=limit
        )
    one, many = (read_checkpoint(tmp_path / n) for n in ("one", "many"))
    for tensor, (path, _) in one.tensors.items():
        other = many.files[many.tensors[tensor][0]]
        assert list(one.files[path].chunks(tensor)) == list(other.chunks(tensor))


def test_a_tied_head_can_be_stored(tmp_path: Path) -> None:
    made = write_synthetic_checkpoint(
        TINY, tmp_path, vocab="tiny", layers=1, lm_head=True, chat_template="t"
    )
    assert made.architecture.num_hidden_layers == 1
    assert "lm_head.weight" in read_checkpoint(tmp_path).tensors


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="layers"):
        write_synthetic_checkpoint(TINY, tmp_path, vocab="tiny", layers=0, chat_template="t")
    with pytest.raises(UsageError, match="vocab"):
        write_synthetic_checkpoint(TINY, tmp_path, vocab="full", chat_template="t")
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(StorageError):
        write_synthetic_checkpoint(TINY, target, vocab="tiny", chat_template="t")


def test_the_config_is_the_published_one() -> None:
    """As Qwen3-0.6B's, key by key."""
    arch = replace(
        catalog.resolve("qwen3:0.6b").model.architecture, bos_token_id=151643, eos_token_id=151645
    )
    found = config_json(arch)
    assert found["architectures"] == ["Qwen3ForCausalLM"] and found["torch_dtype"] == "bfloat16"
    assert (found["head_dim"], found["hidden_size"], found["vocab_size"]) == (128, 1024, 151936)
    assert found["max_position_embeddings"] == 40960 and found["tie_word_embeddings"] is True
    assert list(found) == sorted(found)


# ------------------------------------------------------------------------------------ vocabulary


@pytest.fixture(scope="module")
def full() -> Tokens:
    return vocabulary("full")


def test_merges_are_the_published_ones(full: Tokens) -> None:
    """Size and hash of merges.txt in Qwen's repositories."""
    text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in full.merges)
    raw = text.encode()
    assert len(raw) == 1_671_853
    found = hashlib.sha256(raw).hexdigest()
    assert found.startswith("8831e4f1") and found.endswith("08a904d5")


def test_ids(full: Tokens) -> None:
    assert full.size == 151_669 and len(ADDED) == 26
    ids = {
        "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645,
        "<tool_call>": 151657, "</tool_call>": 151658, "<tool_response>": 151665,
        "</tool_response>": 151666, "<think>": 151667, "</think>": 151668,
    }  # fmt: skip
    assert {t: full.added_id(t) for t in ids} == ids
    special = {t for t, flagged in ADDED if flagged}
    assert "<|im_end|>" in special and not special & {"<think>", "<tool_call>"}


SAMPLES = [
    "Hello, world!", "def f(x):\n    return x  # ok\n", "你好，世界。", "I'll can't 'S 12345 3.14",
    "  leading and   inner  ", "naïve café Ελλάδα עברית",
    "🎉👩‍👩‍👧", "a\r\n\r\n b\t\tc", "\u200b\ufeff",
]  # fmt: skip


def test_encoding_agrees_with_the_ranks(full: Tokens, tmp_path: Path) -> None:
    """Byte-pair encoding with the ranks themselves, by another library."""
    import tiktoken

    from qwharf.formats.tokenizer import PATTERN
    from qwharf.testing.vocabulary import _ranks_path, _read_ranks

    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json(full)), "utf-8")
    ours = load_tokenizer(tmp_path)
    theirs = tiktoken.Encoding(
        "qwen", pat_str=PATTERN, mergeable_ranks=_read_ranks(_ranks_path()), special_tokens={}
    )
    for sample in SAMPLES:
        ids = ours.encode(sample)
        assert ids == theirs.encode(sample, disallowed_special=()), sample
        assert ours.decode(ids) == sample
    assert ours.encode("Hello, world!") == [9707, 11, 1879, 0]


def test_ranks_that_are_no_byte_pairs() -> None:
    ranks = {b"a": 0, b"b": 1, b"abb": 2}
    with pytest.raises(InvalidFile, match="merges to 3 parts"):
        list(derive_merges(ranks, sorted(ranks, key=ranks.__getitem__)))


def test_the_tiny_vocabulary_is_whole() -> None:
    tiny = vocabulary("tiny")
    assert len(set(tiny.pieces)) == len(tiny.pieces) and tiny.size <= 320
    for a, b in tiny.merges:
        assert {a, b, a + b} <= set(tiny.pieces)
