"""What a GGUF file says: its architecture, its parts, and what would make llama.cpp abort."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError, UnsupportedArchitecture
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf import all_tensors, architecture_from_gguf, read_gguf, split_parts
from qwharf.formats.gguf_check import validate_for_engine
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.tensors import gguf_tensors
from qwharf.types import Architecture

DENSE = Architecture(
    model_type="qwen3",
    num_hidden_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=48,
    vocab_size=8,
    tie_word_embeddings=True,
    max_position_embeddings=64,
    bos_token_id=6,
    eos_token_id=7,
)
MOE = replace(
    DENSE,
    model_type="qwen3_moe",
    tie_word_embeddings=False,
    num_experts=3,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
)
F32 = GGML_TYPES["F32"]
Keys = dict[str, tuple[str, Any]]


def metadata(a: Architecture = DENSE) -> Keys:
    kind = "qwen3moe" if a.is_moe else "qwen3"
    numbers = {
        "block_count": a.num_hidden_layers,
        "context_length": a.max_position_embeddings,
        "embedding_length": a.hidden_size,
        "feed_forward_length": a.intermediate_size,
        "attention.head_count": a.num_attention_heads,
        "attention.head_count_kv": a.num_key_value_heads,
        "attention.key_length": a.head_dim,
        "attention.value_length": a.head_dim,
    }
    if a.is_moe:
        numbers |= {"expert_count": a.num_experts, "expert_used_count": a.num_experts_per_tok}
        numbers["expert_feed_forward_length"] = a.moe_intermediate_size
    return {
        "general.architecture": ("str", kind),
        "general.file_type": ("u32", 0),
        **{f"{kind}.{k}": ("u32", v) for k, v in numbers.items()},
        f"{kind}.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
        f"{kind}.rope.freq_base": ("f32", 1e6),
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "qwen2"),
        "tokenizer.ggml.tokens": ("[str]", ["a", "b", "ab", "c", "d", "e", "<|a|>", "<|b|>"]),
        "tokenizer.ggml.token_type": ("[i32]", [1] * 6 + [3, 3]),
        "tokenizer.ggml.merges": ("[str]", ["a b"]),
        "tokenizer.ggml.eos_token_id": ("u32", 7),
        "tokenizer.ggml.bos_token_id": ("u32", 6),
    }


def write(path: Path, keys: Keys, tensors: list[Any]) -> Path:
    header = gguf_header(keys, tensors)
    path.write_bytes(header.data)
    with path.open("r+b") as file:
        file.truncate(header.size_bytes)
    return path


def tensors_of(a: Architecture) -> list[Any]:
    return [(s.name, s.shape, F32) for s in gguf_tensors(a)]


@pytest.mark.parametrize("a", [DENSE, MOE], ids=["dense", "moe"])
def test_a_good_file(tmp_path: Path, a: Architecture) -> None:
    path = write(tmp_path / "x.gguf", metadata(a), tensors_of(a))
    for keep in (False, True):
        assert validate_for_engine(read_gguf(path, keep_arrays=keep)) == a


def test_yarn(tmp_path: Path) -> None:
    keys = metadata() | {
        "qwen3.rope.scaling.type": ("str", "yarn"),
        "qwen3.rope.scaling.factor": ("f32", 4.0),
        "qwen3.rope.scaling.original_context_length": ("u32", 32),
    }
    found = validate_for_engine(read_gguf(write(tmp_path / "x", keys, tensors_of(DENSE))))
    assert found == replace(DENSE, yarn_factor=4.0, yarn_original_context_tokens=32)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen35", "", "x" * 5000, None, 7])
def test_another_architecture_is_named(tmp_path: Path, kind: Any) -> None:
    keys = metadata()
    del keys["general.architecture"]
    if kind is not None:
        keys["general.architecture"] = ("u32" if kind == 7 else "str", kind)
    file = read_gguf(write(tmp_path / "x", keys, tensors_of(DENSE)))
    with pytest.raises(UnsupportedArchitecture) as caught:
        architecture_from_gguf(file)
    assert str(kind)[:50] in str(caught.value) and len(str(caught.value)) < 400


NAN, INF = math.nan, math.inf
BAD: list[tuple[Architecture, Keys, str]] = [
    (DENSE, {"qwen3.block_count": ("u32", 0)}, "block_count"),
    (DENSE, {"qwen3.block_count": ("u32", 2**31)}, "block_count"),
    (DENSE, {"qwen3.block_count": ("u32", 513)}, "block_count"),
    (DENSE, {"qwen3.block_count": ("u32", 3)}, "blk.2"),
    (DENSE, {"qwen3.block_count": ("u32", 1)}, "blk.1"),
    (DENSE, {"qwen3.block_count": ("str", "2")}, "block_count"),
    (DENSE, {"qwen3.block_count": ("[u32]", [2])}, "block_count"),
    (DENSE, {"qwen3.context_length": ("u32", 0)}, "context_length"),
    (DENSE, {"qwen3.context_length": ("u32", 2**31 - 1)}, "context_length"),
    (DENSE, {"qwen3.embedding_length": ("u32", 0)}, "embedding_length"),
    (DENSE, {"qwen3.embedding_length": ("u32", 64)}, "by the metadata"),
    (DENSE, {"qwen3.attention.head_count": ("u32", 0)}, "head_count"),
    (DENSE, {"qwen3.attention.head_count": ("u32", 3)}, "head_count"),
    (DENSE, {"qwen3.attention.head_count": ("[u32]", [4, 4])}, "head_count"),
    (DENSE, {"qwen3.attention.head_count_kv": ("u32", 0)}, "head_count_kv"),
    (DENSE, {"qwen3.attention.head_count_kv": ("u32", 4)}, "attn_k"),
    (DENSE, {"qwen3.attention.key_length": ("u32", 15)}, "key_length"),
    (DENSE, {"qwen3.attention.value_length": ("u32", 8)}, "value_length"),
    (DENSE, {"qwen3.rope.dimension_count": ("u32", 8)}, "dimension_count"),
    (DENSE, {"qwen3.feed_forward_length": ("u32", 47)}, "ffn_"),
    (DENSE, {"qwen3.attention.layer_norm_rms_epsilon": ("f32", NAN)}, "epsilon"),
    (DENSE, {"qwen3.attention.layer_norm_rms_epsilon": ("f32", 0.0)}, "epsilon"),
    (DENSE, {"qwen3.rope.freq_base": ("f32", NAN)}, "freq_base"),
    (DENSE, {"qwen3.rope.freq_base": ("f32", -1.0)}, "freq_base"),
    (DENSE, {"qwen3.rope.freq_base": ("str", "1e6")}, "freq_base"),
    (DENSE, {"qwen3.rope.scale_linear": ("f32", INF)}, "scale_linear"),
    (DENSE, {"qwen3.rope.scaling.type": ("str", "longrope")}, "scaling.type"),
    (DENSE, {"qwen3.rope.scaling.type": ("str", "yarn")}, "scaling.factor"),
    (DENSE, {"qwen3.expert_count": ("u32", 8)}, "experts"),
    (DENSE, {"qwen3.nextn_predict_layers": ("u32", 1)}, "nextn"),
    (DENSE, {"tokenizer.ggml.model": ("str", "llama")}, "tokenizer.ggml.model"),
    (DENSE, {"tokenizer.ggml.pre": ("str", "default")}, "pre = 'default'"),
    (DENSE, {"tokenizer.ggml.tokens": ("[str]", ["a"])}, "tokens"),
    (DENSE, {"tokenizer.ggml.tokens": ("[u32]", [1] * 8)}, "tokens"),
    (DENSE, {"tokenizer.ggml.tokens": ("str", "abcdefgh")}, "tokens"),
    (DENSE, {"tokenizer.ggml.tokens": ("[str]", ["a"] * 8)}, "again"),
    (DENSE, {"tokenizer.ggml.tokens": ("[str]", [*"abcdefg", ""])}, "empty"),
    (DENSE, {"tokenizer.ggml.token_type": ("[i32]", [1])}, "token_type"),
    (DENSE, {"tokenizer.ggml.token_type": ("[u32]", [1] * 8)}, "token_type"),
    (DENSE, {"tokenizer.ggml.merges": ("[str]", [])}, "merges"),
    (DENSE, {"tokenizer.ggml.merges": ("[u8]", [1])}, "merges"),
    (DENSE, {"tokenizer.ggml.eos_token_id": ("u32", 8)}, "eos_token_id"),
    (DENSE, {"tokenizer.ggml.eos_token_id": ("i32", -1)}, "eos_token_id"),
    (DENSE, {"tokenizer.ggml.eos_token_id": ("bool", True)}, "eos_token_id"),
    (DENSE, {"tokenizer.ggml.padding_token_id": ("u32", 10**9)}, "padding_token_id"),
    (MOE, {"qwen3moe.expert_count": ("u32", 0)}, "expert_count"),
    (MOE, {"qwen3moe.expert_count": ("u32", 1025)}, "expert_count"),
    (MOE, {"qwen3moe.expert_count": ("u32", 4)}, "by the metadata"),
    (MOE, {"qwen3moe.expert_used_count": ("u32", 0)}, "expert_used_count"),
    (MOE, {"qwen3moe.expert_used_count": ("u32", 4)}, "expert_used_count"),
    (MOE, {"qwen3moe.expert_group_count": ("u32", 2)}, "expert_group_count"),
    (MOE, {"qwen3moe.expert_feed_forward_length": ("u32", 0)}, "expert_feed_forward_length"),
]


@pytest.mark.parametrize(("a", "change", "named"), BAD, ids=range(len(BAD)))
def test_what_would_abort_the_engine(
    tmp_path: Path, a: Architecture, change: Keys, named: str
) -> None:
    file = read_gguf(write(tmp_path / "x.gguf", metadata(a) | change, tensors_of(a)))
    with pytest.raises(InvalidFile, match=named) as caught:
        validate_for_engine(file)
    assert caught.value.subject.endswith("x.gguf") and caught.value.hint


@pytest.mark.parametrize(
    "missing", [k for k in metadata(MOE) if k.startswith("qwen3moe.") or "eos" in k]
)
def test_a_missing_key(tmp_path: Path, missing: str) -> None:
    keys = {k: v for k, v in metadata(MOE).items() if k != missing}
    file = read_gguf(write(tmp_path / "x.gguf", keys, tensors_of(MOE)))
    optional = ("head_count_kv", "key_length", "value_length", "freq_base", "feed_forward_length")
    if missing.endswith(optional) and not missing.endswith("expert_feed_forward_length"):
        try:  # the loader's own default, held against the shapes
            validate_for_engine(file)
        except InvalidFile as e:
            assert "by the metadata" in str(e) or "key_length" in str(e)
        return
    with pytest.raises(InvalidFile, match=missing.partition(".")[2].rpartition(".")[2]):
        validate_for_engine(file)


def test_tensors_that_are_wrong(tmp_path: Path) -> None:
    good = tensors_of(DENSE)
    q8 = GGML_TYPES["Q8_0"]
    cases = {
        "no tensor output_norm": [t for t in good if t[0] != "output_norm.weight"],
        "unknown tensor 'x'": [*good, ("x", (1,), F32)],
        "attn_norm.weight as Q8_0": [(n, s, q8 if "0.attn_norm" in n else t) for n, s, t in good],
        "of shape": [(n, (*s, 1) if n == "output_norm.weight" else s, t) for n, s, t in good],
        "no token_embd": [t for t in good if t[0] != "token_embd.weight"],
    }
    for named, tensors in cases.items():
        file = read_gguf(write(tmp_path / "x.gguf", metadata(), tensors))
        with pytest.raises(InvalidFile, match=named):
            validate_for_engine(file)


# ---------------------------------------------------------------------------------------- parts


def split(folder: Path, count: int = 3) -> list[Path]:
    tensors = tensors_of(DENSE)
    paths = []
    for n in range(count):
        keys: Keys = metadata() if n == 0 else {}
        keys = {
            **keys,
            "split.no": ("u16", n),
            "split.count": ("u16", count),
            "split.tensors.count": ("i32", len(tensors)),
        }
        path = folder / f"m-{n + 1:05d}-of-{count:05d}.gguf"
        paths.append(write(path, keys, tensors[n::count]))
    return paths


def test_parts(tmp_path: Path) -> None:
    parts = split(tmp_path)
    assert split_parts(parts[1]) == parts
    assert split_parts(tmp_path / "other.gguf") == [tmp_path / "other.gguf"]
    first = read_gguf(parts[0])
    tensors = all_tensors(first)
    assert set(tensors) == {s.name for s in gguf_tensors(DENSE)}
    assert {t.path for t in tensors.values()} == set(parts)
    assert validate_for_engine(first) == DENSE


def test_a_later_part_names_the_first(tmp_path: Path) -> None:
    parts = split(tmp_path)
    with pytest.raises(InvalidFile) as caught:
        architecture_from_gguf(read_gguf(parts[2]))
    assert "m-00001-of-00003.gguf" in caught.value.hint


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    parts = split(tmp_path)
    keep = parts[1].read_bytes()
    parts[1].unlink()
    with pytest.raises(InvalidFile, match=r"no m-00002-of-00003\.gguf") as caught:
        split_parts(parts[0])
    assert caught.value.facts["missing"] == ["m-00002-of-00003.gguf"]
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(InvalidFile, match=r"split\.no = 2"):
        validate_for_engine(read_gguf(parts[0]))
    parts[1].write_bytes(keep[:-1])
    with pytest.raises(InvalidFile, match="00002-of-00003"):
        validate_for_engine(read_gguf(parts[0]))
    renamed = parts[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(InvalidFile, match="3 parts named renamed-00001-of-00003"):
        validate_for_engine(read_gguf(renamed))


def test_a_name_that_promises_many_parts(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-99999.gguf"
    path.write_bytes(b"")
    with pytest.raises(InvalidFile, match="99997 more") as caught:
        split_parts(path)
    assert len(caught.value.facts["missing"]) <= 100
    with pytest.raises(InvalidFile, match="part 2 of 1"):
        split_parts(tmp_path / "m-00002-of-00001.gguf")


# ------------------------------------------------------------------------------------ anything

SCALARS: list[Any] = [
    ("u32", 0), ("u32", 1), ("u32", 2**32 - 1), ("i32", -1), ("f32", NAN), ("f32", INF),
    ("bool", True), ("str", ""), ("str", "x"), ("[u32]", []), ("[str]", ["a"]), ("u64", 2**64 - 1),
    ("f64", -0.0), ("i64", -(2**63)),
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.sampled_from([DENSE, MOE]),
    st.dictionaries(
        st.sampled_from([*metadata(MOE), *metadata(), "split.count", "split.no"])
        | st.sampled_from(["split.tensors.count", "qwen3.rope.scaling.type"]),
        st.sampled_from(SCALARS),
        max_size=3,
    ),
)
def test_wild_metadata_is_taken_or_refused(tmp_path: Path, a: Architecture, change: Keys) -> None:
    path = write(tmp_path / "x.gguf", metadata(a) | change, tensors_of(a))
    try:
        found = validate_for_engine(read_gguf(path))
    except QwharfError as e:
        assert len(str(e)) < 1000
    else:
        assert found.num_hidden_layers == a.num_hidden_layers
