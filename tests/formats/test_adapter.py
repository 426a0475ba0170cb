"""LoRA adapters: PEFT's folders and llama.cpp's files, read strictly and made of one another."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError
from qwharf.formats.adapter import CONFIG, WEIGHTS, read_adapter
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf_adapter import check_gguf_adapter, write_gguf_adapter
from qwharf.formats.gguf_reader import read_gguf
from qwharf.formats.gguf_writer import GgufWriter
from qwharf.formats.safetensors import SafetensorsWriter, read_safetensors
from qwharf.testing import TINY, TINY_MOE, write_synthetic_adapter

Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_synthetic_adapter(TINY, tmp_path / "law", rank=8, alpha=16)


def weights(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    entries = [(name, dtype, shape) for name, (dtype, shape) in tensors.items()]
    with SafetensorsWriter(folder / WEIGHTS, entries, {}) as out:
        for _, dtype, shape in entries:
            size = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}[dtype]
            out.write(bytes(size * int(np.prod(shape))))


def pair(
    name: str = Q, dtype: str = "F32", a: tuple[int, ...] = (8, 256), b: tuple[int, ...] = (256, 8)
) -> dict[str, tuple[str, tuple[int, ...]]]:
    at = f"base_model.model.{name}"
    return {f"{at}.lora_A.weight": (dtype, a), f"{at}.lora_B.weight": (dtype, b)}


# ----------------------------------------------------------------------------------------- PEFT


def test_a_folder_of_pefts(folder: Path) -> None:
    found = read_adapter(folder, TINY)
    assert (found.rank, found.alpha, found.scale) == (8, 16.0, 2.0)
    assert len(found.pairs) == 3 * TINY.num_hidden_layers
    assert found.pairs[f"{Q}.weight"].a.shape == (8, 256)


def test_rank_stabilised_scales_by_the_root(tmp_path: Path) -> None:
    folder = write_synthetic_adapter(TINY, tmp_path / "a", rank=16, alpha=8, use_rslora=True)
    assert read_adapter(folder, TINY).scale == 2.0


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": "8"}, "'8'"),
        ({"r": True}, "True"),
        ({"r": 0}, "rank 0"),
        ({"r": 4096}, "rank 4096"),
        ({"lora_alpha": None}, "None"),
        ({"lora_alpha": 0}, "lora_alpha 0"),
        ({"lora_alpha": float("nan")}, "nan"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
    ],
)
def test_what_is_more_or_less_than_a_plain_adapter(
    config: dict[str, Any], found: str, tmp_path: Path
) -> None:
    folder = write_synthetic_adapter(TINY, tmp_path / "a", **config)
    with pytest.raises(InvalidFile) as e:
        read_adapter(folder, TINY)
    assert found in e.value.found
    assert e.value.subject == str(folder / CONFIG)
    assert e.value.hint


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({}, "no tensors"),
        ({"lora_A": ("F32", (8, 256))}, "lora_A"),
        ({k: v for k, v in pair().items() if "_A" in k}, "B is missing"),
        (pair("model.layers.3.self_attn.q_proj"), "layers.3"),
        (pair("model.layers.0.self_attn.q_norm"), "q_norm"),
        (pair("model.layers.0.mlp.experts.0.up_proj"), "experts"),
        (pair(a=(4, 256), b=(256, 4)), "[4, 256]"),
        (pair(a=(8, 512)), "[8, 512]"),
        (pair(b=(128, 8)), "[128, 8]"),
        (pair(b=(8, 256)), "[8, 256]"),
        (pair(dtype="I8"), "I8"),
    ],
)
def test_matrices_that_do_not_suit_the_model(
    tensors: dict[str, tuple[str, tuple[int, ...]]], found: str, folder: Path
) -> None:
    weights(folder, tensors)
    with pytest.raises(InvalidFile) as e:
        read_adapter(folder, TINY)
    assert found in e.value.found
    assert e.value.subject == str(folder / WEIGHTS)
    assert e.value.hint


def test_a_pickle_is_not_looked_at(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(InvalidFile, match="no adapter_model") as e:
        read_adapter(folder, TINY)
    assert "pickle" in e.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(["peft_type", "r", "lora_alpha", "use_rslora", "bias", "init_lora_weights"])


@given(st.dictionaries(KEYS, JSON))
def test_any_configuration_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-adapter"
    if not folder.exists():
        write_synthetic_adapter(TINY, folder)
    told = {"peft_type": "LORA", "r": 8, "lora_alpha": 16} | config
    (folder / CONFIG).write_text(json.dumps(told), "utf-8")
    try:
        assert read_adapter(folder, TINY).scale > 0
    except QwharfError as e:
        assert e.found


# ----------------------------------------------------------------------------------------- GGUF


def test_a_file_for_llama_cpp_has_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "law.gguf"
    write_gguf_adapter(read_adapter(folder, TINY), TINY, path)
    check_gguf_adapter(path, TINY)
    made, source = read_gguf(path), read_safetensors(folder / WEIGHTS)
    assert made.metadata["adapter.lora.alpha"] == 16.0
    assert len(made.tensors) == len(source.tensors)
    for half in "AB":
        name = f"blk.1.attn_q.weight.lora_{half.lower()}"
        theirs = f"base_model.model.{Q}.lora_{half}.weight"
        assert made.tensors[name].shape == source.tensors[theirs].shape
        assert b"".join(made.chunks(name)) == b"".join(source.chunks(theirs))


def test_sixteen_bits_are_widened_and_the_root_is_allowed_for(tmp_path: Path) -> None:
    folder = write_synthetic_adapter(TINY, tmp_path / "a", rank=4, alpha=8, use_rslora=True)
    entries = pair(dtype="BF16", a=(4, 256), b=(256, 4))
    with SafetensorsWriter(
        folder / WEIGHTS, [(n, d, s) for n, (d, s) in entries.items()], {}
    ) as out:
        out.write(struct.pack("<H", 0x3FC0) * 1024)  # 1.5
        out.write(struct.pack("<H", 0xC000) * 1024)  # -2
    write_gguf_adapter(read_adapter(folder, TINY), TINY, tmp_path / "a.gguf")
    made = read_gguf(tmp_path / "a.gguf")
    assert made.metadata["adapter.lora.alpha"] == 16.0  # 8 / sqrt(4) = 16 / 4
    a = np.frombuffer(b"".join(made.chunks("blk.1.attn_q.weight.lora_a")), "<f4")
    assert set(a) == {1.5}


def test_what_a_file_cannot_hold(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    experts = write_synthetic_adapter(TINY_MOE, tmp_path / "moe", modules=["up_proj"])
    with pytest.raises(InvalidFile, match="experts"):
        write_gguf_adapter(read_adapter(experts, TINY_MOE), TINY_MOE, out)
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-4:] = struct.pack("<f", float("inf"))
    (folder / WEIGHTS).write_bytes(raw)
    with pytest.raises(InvalidFile, match="finite"):
        write_gguf_adapter(read_adapter(folder, TINY), TINY, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["law", "moe"]


A, B = "blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"
PLAIN = {A: (8, 256), B: (256, 8)}


def gguf(path: Path, tensors: dict[str, tuple[int, ...]], **told: Any) -> Path:
    keys = {
        "general.architecture": ("str", "qwen3"),
        "general.type": ("str", "adapter"),
        "adapter.type": ("str", "lora"),
        "adapter.lora.alpha": ("f32", 16.0),
    } | {k.replace("__", "."): v for k, v in told.items()}
    kept = {k: v for k, v in keys.items() if v is not None}
    with GgufWriter(path, kept, [(n, s, GGML_TYPES["F32"]) for n, s in tensors.items()]) as out:
        out.write(bytes(4 * sum(int(np.prod(s)) for s in tensors.values())))
    return path


def test_a_file_of_somebody_elses(tmp_path: Path) -> None:
    check_gguf_adapter(gguf(tmp_path / "a.gguf", PLAIN), TINY)
    experts = {
        "blk.0.ffn_up_exps.weight.lora_a": (16, 8, 256),
        "blk.0.ffn_up_exps.weight.lora_b": (16, 256, 8),
    }
    path = gguf(tmp_path / "b.gguf", experts, general__architecture=("str", "qwen3moe"))
    check_gguf_adapter(path, TINY_MOE)


@pytest.mark.parametrize(
    ("tensors", "told", "found"),
    [
        (PLAIN, {"general__type": ("str", "model")}, "model"),
        (PLAIN, {"general__type": None}, "None"),
        (PLAIN, {"general__architecture": ("str", "llama")}, "llama"),
        (PLAIN, {"general__architecture": ("str", "qwen3moe")}, "qwen3moe"),
        (PLAIN, {"adapter__type": ("str", "control_vector")}, "control_vector"),
        (PLAIN, {"adapter__lora__alpha": None}, "None"),
        (PLAIN, {"adapter__lora__alpha": ("f32", 0.0)}, "0.0"),
        (PLAIN, {"adapter__lora__alpha": ("str", "16")}, "'16'"),
        (PLAIN, {"adapter__alora__invocation_tokens": ("[u32]", [1])}, "alora"),
        ({}, {}, "no tensors"),
        ({A: (8, 256)}, {}, A),
        ({A: (8, 512), B: (256, 8)}, {}, "[8, 512]"),
        ({A: (8, 256), B: (256, 4)}, {}, "[256, 4]"),
        ({A: (256,), B: (256,)}, {}, "[256]"),
        ({n.replace("blk.0", "blk.7"): s for n, s in PLAIN.items()}, {}, "blk.7"),
        (PLAIN | {"blk.0.attn_norm.weight": (256,)}, {}, "attn_norm"),
    ],
)
def test_files_that_llama_cpp_would_refuse_or_misread(
    tensors: dict[str, tuple[int, ...]], told: dict[str, Any], found: str, tmp_path: Path
) -> None:
    path = gguf(tmp_path / "a.gguf", tensors, **told)
    with pytest.raises(InvalidFile) as e:
        check_gguf_adapter(path, TINY)
    assert found in e.value.found
    assert e.value.hint
