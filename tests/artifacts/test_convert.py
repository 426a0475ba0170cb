"""Conversion of one file: what is made, what is refused, and what survives full disks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwharf.artifacts import disk
from qwharf.artifacts.convert import TARGETS, can_convert, convert
from qwharf.artifacts.journal import Journal
from qwharf.errors import (
    Conflict,
    FormatUnavailable,
    InvalidFile,
    StorageError,
    UnsupportedArchitecture,
)
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.formats.gguf import read_gguf
from qwharf.formats.gguf_check import validate_for_engine
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.safetensors import SafetensorsWriter
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Format

BF16, Q8, Q4 = (Format("gguf", q) for q in ("bf16", "q8_0", "q4_k_m"))
SHAPE = replace(TINY, num_hidden_layers=4, hidden_size=512, intermediate_size=1536)


def synthetic(folder: Path, arch: Any = TINY, **options: Any) -> Path:
    options = {"vocab": "tiny", "chat_template": "{{ messages }}"} | options
    write_synthetic_checkpoint(arch, folder, **options)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(tmp_path_factory.mktemp("source") / "Qwen3-0.1B-Tiny-2507")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic(tmp_path_factory.mktemp("larger") / "larger", SHAPE)


@pytest.fixture
def own(source: Path, tmp_path: Path) -> Path:
    """A copy of the source to spoil."""
    return Path(shutil.copytree(source, tmp_path / "own"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --------------------------------------------------------------------------------- what is made


def test_what_is_told_and_made(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    made = convert(source, Q4, tmp_path / "out.gguf", progress=lambda *a: told.append(a))
    assert made.path == tmp_path / "out.gguf" and names(tmp_path) == ["out.gguf"]
    assert made.size_bytes == made.path.stat().st_size and made.resumed_tensors == 0
    done = [d for d, _, __ in told]
    assert done == sorted(done) and done[-1] == told[0][1]
    file = read_gguf(made.path, keep_arrays=True)
    assert made.tensors == len(file.tensors)
    arch = validate_for_engine(file)
    assert arch == read_checkpoint(source).architecture


def test_metadata(source: Path, tmp_path: Path) -> None:
    convert(source, Q4, tmp_path / "out.gguf")
    file = read_gguf(tmp_path / "out.gguf", keep_arrays=True)
    found = {k: v for k, v in file.metadata.items() if not isinstance(v, list)}
    assert found | {"general.sampling.top_p": 0.95, "general.sampling.temp": 0.6} == {
        "general.architecture": "qwen3",
        "general.type": "model",
        "general.sampling.top_k": 20,
        "general.sampling.top_p": 0.95,
        "general.sampling.temp": 0.6,
        "general.name": "Qwen3 0.1B Tiny 2507",
        "general.version": "2507",
        "general.finetune": "Tiny",
        "general.basename": "Qwen3",
        "general.size_label": "0.1B",
        "qwen3.block_count": 3,
        "qwen3.context_length": 2048,
        "qwen3.embedding_length": 256,
        "qwen3.feed_forward_length": 512,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.rope.freq_base": 1e6,
        "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "qwen3.attention.key_length": 64,
        "qwen3.attention.value_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": found["tokenizer.ggml.bos_token_id"] + 2,
        "tokenizer.ggml.padding_token_id": found["tokenizer.ggml.bos_token_id"],
        "tokenizer.ggml.bos_token_id": found["tokenizer.ggml.bos_token_id"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": "{{ messages }}",
        "general.quantization_version": 2,
        "general.file_type": 15,
    }
    types = file.metadata["tokenizer.ggml.token_type"]
    tokens = file.metadata["tokenizer.ggml.tokens"]
    by_text = dict(zip(tokens, types, strict=True))
    assert (by_text["<|im_end|>"], by_text["<think>"], by_text["<|fim_pad|>"]) == (3, 4, 3)
    assert by_text["the"] == 1 and tokens[-1] == "[PAD319]" and types[-1] == 5


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
def test_the_floats_are_those_of_the_source(tmp_path: Path, dtype: str) -> None:
    folder = synthetic(tmp_path / "in", dtype=dtype)
    convert(folder, Format("gguf", dtype), tmp_path / "out.gguf")
    file, checkpoint = read_gguf(tmp_path / "out.gguf"), read_checkpoint(folder)
    path, _ = checkpoint.tensors["model.layers.1.mlp.down_proj.weight"]
    wanted = list(checkpoint.files[path].chunks("model.layers.1.mlp.down_proj.weight"))
    assert list(file.chunks("blk.1.ffn_down.weight")) == wanted
    assert file.tensors["blk.1.ffn_norm.weight"].type.name == "F32"
    ones = np.frombuffer(b"".join(file.chunks("blk.1.ffn_norm.weight")), np.float32)
    assert (ones == 1).all()


def test_shards_and_threads_make_no_difference(source: Path, tmp_path: Path) -> None:
    sharded = synthetic(tmp_path / source.name, shard_bytes=300_000)
    for threads, folder in ((1, source), (3, source), (2, sharded)):
        convert(folder, Q4, tmp_path / f"{threads}.gguf", threads=threads)
    assert len({sha256(tmp_path / f"{n}.gguf") for n in (1, 2, 3)}) == 1


def test_a_stored_copy_of_a_tied_head_is_dropped(source: Path, tmp_path: Path) -> None:
    folder = synthetic(tmp_path / source.name, lm_head=True)
    convert(folder, Q8, tmp_path / "a.gguf")
    convert(source, Q8, tmp_path / "b.gguf")
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")


def test_experts_stacked_as_transformers_5_stores_them(tmp_path: Path) -> None:
    folder = synthetic(tmp_path / "moe", TINY_MOE)
    convert(folder, Q8, tmp_path / "a.gguf")
    checkpoint = read_checkpoint(folder)

    def data(name: str) -> bytes:
        path, _ = checkpoint.tensors[name]
        return b"".join(checkpoint.files[path].chunks(name))

    a = checkpoint.architecture
    entries: dict[str, tuple[tuple[int, ...], bytes]] = {
        n: (e.shape, data(n)) for n, (_, e) in checkpoint.tensors.items() if ".experts." not in n
    }
    for layer in range(a.num_hidden_layers):
        at = f"model.layers.{layer}.mlp.experts."
        each = range(a.num_experts)
        both = [data(f"{at}{e}.{p}_proj.weight") for e in each for p in ("gate", "up")]
        shape = (a.num_experts, 2 * a.moe_intermediate_size, a.hidden_size)
        entries[f"{at}gate_up_proj"] = shape, b"".join(both)
        shape = (a.num_experts, a.hidden_size, a.moe_intermediate_size)
        entries[f"{at}down_proj"] = shape, b"".join(data(f"{at}{e}.down_proj.weight") for e in each)
    with SafetensorsWriter(
        folder / "model.safetensors", [(n, "BF16", s) for n, (s, _) in entries.items()]
    ) as writer:
        for _, raw in entries.values():
            writer.write(raw)
    convert(folder, Q8, tmp_path / "b.gguf")
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")


def test_a_split_gguf_is_a_source_too(source: Path, tmp_path: Path) -> None:
    convert(source, BF16, tmp_path / "one.gguf")
    file = read_gguf(tmp_path / "one.gguf", keep_arrays=True)
    all_names = list(file.tensors)
    for n in range(2):
        part = [file.tensors[t] for t in all_names[n::2]]
        keys = {k: (file.kinds[k], v) for k, v in file.metadata.items()} if n == 0 else {}
        keys |= {
            "split.no": ("u16", n),
            "split.count": ("u16", 2),
            "split.tensors.count": ("i32", len(all_names)),
        }
        header = gguf_header(keys, [(t.name, t.shape, t.type) for t in part])
        body = bytearray(header.size_bytes)
        body[: len(header.data)] = header.data
        for t in part:
            at = header.offsets[t.name]
            body[at : at + t.size_bytes] = b"".join(file.chunks(t.name))
        (tmp_path / f"m-{n + 1:05d}-of-00002.gguf").write_bytes(body)
    convert(tmp_path / "one.gguf", Q4, tmp_path / "a.gguf")
    convert(tmp_path / "m-00001-of-00002.gguf", Q4, tmp_path / "b.gguf")
    assert sha256(tmp_path / "a.gguf") == sha256(tmp_path / "b.gguf")


def test_an_existing_file_is_replaced_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    convert(source, Q8, out)
    assert read_gguf(out).metadata["general.file_type"] == 7


def test_what_can_be_converted() -> None:
    original = Format("safetensors", "bf16")
    assert can_convert(original, Q4) and can_convert(Format("gguf", "bf16"), Q4)
    assert can_convert(Q4, Q8) and not can_convert(original, Format("gguf", "iq2_xs"))
    assert can_convert(Format("safetensors", "fp8"), Q4) and not can_convert(Q4, Q4)
    assert can_convert(original, Format("safetensors", "awq")) and "q4_k_m" in TARGETS


# ------------------------------------------------------------------------------ what is refused


def spoil_json(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")


def poke(folder: Path, tensor: str, value: bytes) -> None:
    path, entry = read_checkpoint(folder).tensors[tensor]
    with path.open("r+b") as file:
        file.seek(entry.offset + 2 * 77)
        file.write(value)


@pytest.mark.parametrize("value", [b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x81\xff"])
@pytest.mark.parametrize("target", [BF16, Q8, Q4])
def test_weights_that_are_not_finite(own: Path, tmp_path: Path, value: bytes, target: Any) -> None:
    poke(own, "model.layers.1.self_attn.v_proj.weight", value)
    with pytest.raises(InvalidFile, match="attn_v") as caught:
        convert(own, target, tmp_path / "out.gguf")
    assert caught.value.facts["tensor"] == "blk.1.attn_v.weight"
    assert names(tmp_path) == ["own"]


def test_weights_beyond_the_target(own: Path, tmp_path: Path) -> None:
    poke(own, "model.layers.1.self_attn.v_proj.weight", struct.pack("<f", 1e30)[2:])
    convert(own, BF16, tmp_path / "out.gguf")
    for target in ("f16", "q8_0"):
        with pytest.raises(InvalidFile, match="attn_v"):
            convert(own, Format("gguf", target), tmp_path / "x.gguf")
    assert names(tmp_path) == ["out.gguf", "own"]


@pytest.mark.parametrize("target", ["iq2_xs", "q2_k_s", "mxfp4_moe"])
def test_targets_that_cannot_be_made(source: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(FormatUnavailable) as caught:
        convert(source, Format("gguf", target), tmp_path / "out.gguf")
    assert caught.value.hint and names(tmp_path) == []


def test_quantised_sources(own: Path, tmp_path: Path) -> None:
    convert(own, Q8, tmp_path / "q8.gguf")
    convert(tmp_path / "q8.gguf", Q4, tmp_path / "out.gguf")  # dequantised first
    assert read_gguf(tmp_path / "out.gguf").metadata["general.file_type"] == 15
    path, entry = read_checkpoint(own).tensors["model.norm.weight"]
    data = path.read_bytes().replace(b'"BF16","shape":[256]', b'"I16" ,"shape":[256]')
    assert entry.dtype == "BF16" and data != path.read_bytes()
    path.write_bytes(data)
    with pytest.raises(FormatUnavailable, match="I16"):
        convert(own, Q4, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("config.json", {"head_dim": 32}, "q_proj"),
        ("config.json", {"num_hidden_layers": 4}, "layers.3"),
        ("config.json", {"num_hidden_layers": 2}, "layers.2"),
        ("config.json", {"vocab_size": 321}, "embed_tokens"),
        ("config.json", {"tie_word_embeddings": False}, "lm_head"),
        ("config.json", {"rope_theta": 1e300}, "rope_theta"),
        ("config.json", {"eos_token_id": 320}, "token"),
        ("generation_config.json", {"top_k": 10**12}, "i32"),
        ("generation_config.json", {"temperature": 1e300}, "f32"),
        ("tokenizer_config.json", {"chat_template": "\ud800"}, "UTF-8|utf-8"),
        ("tokenizer.json", {"model": 5}, "tokenizer"),
        ("tokenizer.json", {"pre_tokenizer": None}, "pre_tokenizer"),
        ("tokenizer.json", {"added_tokens": [5]}, "added_tokens"),
        ("tokenizer.json", {"added_tokens": [{"id": 1e999, "content": "a"}]}, "added"),
        ("tokenizer.json", {"added_tokens": [{"id": 999, "content": "a"}]}, "999"),
        ("tokenizer.json", {"added_tokens": [{"id": 300, "content": "\udfff"}]}, "utf-8"),
    ],
)
def test_files_that_do_not_fit(
    own: Path, tmp_path: Path, name: str, change: dict[str, Any], named: str
) -> None:
    if "eos_token_id" in change:
        spoil_json(own / "generation_config.json", eos_token_id=320)
        spoil_json(own / "tokenizer_config.json", eos_token=None)
    spoil_json(own / name, **change)
    with pytest.raises(InvalidFile, match=named) as caught:
        convert(own, Q8, tmp_path / "out.gguf")
    assert str(own) in caught.value.subject and names(tmp_path) == ["own"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files(own: Path, tmp_path: Path, name: str) -> None:
    (own / name).unlink()
    with pytest.raises(InvalidFile, match=name.replace(".", r"\.")):
        convert(own, Q8, tmp_path / "out.gguf")


def test_other_sources(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        convert(tmp_path / "none", Q8, tmp_path / "out.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidFile):
        convert(tmp_path / "x.gguf", Q8, tmp_path / "out.gguf")
    spoil_json(own / "config.json", architectures=["LlamaForCausalLM"])
    with pytest.raises(UnsupportedArchitecture, match="LlamaForCausalLM"):
        convert(own, Q8, tmp_path / "out.gguf")


def test_targets_that_are_no_place_to_write(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "folder", tmp_path / "file" / "x.gguf", Path("/proc/none/x.gguf")):
        with pytest.raises(StorageError):
            convert(source, Q8, out)
    assert names(tmp_path) == ["file", "folder"]


# ------------------------------------------------------------- interruptions, twins, full disks


def test_what_was_finished_is_not_done_again(larger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"

    class Stop(Exception):
        pass

    def stop(done: int, total: int, _: str) -> None:
        if done > total / 2:
            raise Stop

    with pytest.raises(Stop):
        convert(larger, Q8, out, progress=stop, threads=1)
    partial = tmp_path / "out.gguf.partial"
    assert names(tmp_path) == [partial.name] and names(partial) == [".journal", "out.gguf"]
    data = (partial / "out.gguf").read_bytes()
    made = convert(larger, Q8, out)
    assert 0 < made.resumed_tensors < made.tensors and names(tmp_path) == ["out.gguf"]
    expected = sha256(out)
    # Another source, target or a damaged journal begins anew.
    for spoiled in (b"", b"{", b'{"plan": "x"}\n[0, 1, 2]\n', b"\xff"):
        partial.mkdir()
        (partial / "out.gguf").write_bytes(data)
        (partial / ".journal").write_bytes(spoiled)
        assert convert(larger, Q8, out).resumed_tensors == 0
        assert sha256(out) == expected and names(tmp_path) == ["out.gguf"]
    with pytest.raises(Stop):
        convert(larger, Q8, out, progress=stop)
    assert convert(larger, Q8, out, resume=False).resumed_tensors == 0


def test_a_journal_is_believed_line_by_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "plan", 5)
    assert journal.read() == frozenset()
    journal.start(frozenset({1}))
    journal.add([2, 3])
    assert journal.read() == {1, 2, 3}
    with journal.path.open("ab") as file:
        file.write(b"[4")
    assert journal.read() == {1, 2, 3}
    journal.start(frozenset())
    with journal.path.open("ab") as file:
        file.write(b'[9, -1, "a", 0]\n5\n[1]\n')
    assert journal.read() == {0}


def test_two_at_once(larger: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    inside: list[type[BaseException]] = []

    def again(*_: object) -> None:
        if not inside:
            with pytest.raises(Conflict) as caught:
                convert(larger, Q4, out)
            inside.append(caught.type)

    convert(larger, Q4, out, progress=again)
    assert inside == [Conflict] and names(tmp_path) == ["out.gguf"]


def test_a_disk_that_is_too_small_is_not_written_to(larger: Path, small_disk: Path) -> None:
    with pytest.raises(StorageError, match="MB") as caught:
        convert(larger, BF16, small_disk / "out.gguf")
    assert caught.value.facts["needed_bytes"] > caught.value.facts["free_bytes"]
    assert names(small_disk) == []


FULL = """
import resource, sys
from pathlib import Path
from qwharf.artifacts import disk
from qwharf.artifacts.convert import convert
from qwharf.errors import StorageError
from qwharf.types import Format
source, out = map(Path, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    convert(source, Format("gguf", "bf16"), out)
except StorageError as e:
    print(e.code, e.subject, e.found, sep="|")
"""


def test_a_disk_that_fills_up(
    larger: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room was there when it began, and was taken by another while it ran."""
    monkeypatch.setattr(disk, "free_bytes", lambda _: 10**12)
    out = small_disk / "out.gguf"
    with pytest.raises(StorageError, match="No space left") as caught:
        convert(larger, BF16, out)
    assert "goes on where it stopped" in caught.value.hint and not out.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    made = convert(larger, BF16, out)
    assert names(small_disk) == ["out.gguf"] and made.size_bytes == out.stat().st_size
    convert(larger, BF16, small_disk / "clean.gguf")
    assert sha256(out) == sha256(small_disk / "clean.gguf")


@pytest.mark.skipif(os.name == "nt", reason="no such limit")
@pytest.mark.parametrize("limit", [1_000, 100_000, 3_000_000])
def test_a_file_that_may_not_grow(larger: Path, tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out.gguf"
    argv = [sys.executable, "-c", FULL, str(larger), str(out), str(limit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("storage_error|") and not out.exists()
    assert not done.stderr
    convert(larger, BF16, out)
    assert names(tmp_path) == ["out.gguf"]


MEMORY = """
import resource, sys
from pathlib import Path
import numpy
from qwharf.artifacts import disk
from qwharf.artifacts.convert import convert
from qwharf.quantize import ggml
from qwharf.types import Format
ggml.library()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(Path(sys.argv[1]), Format("gguf", "q8_0"), Path(sys.argv[2]), threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A checkpoint of 150 MB, with tensors of 33 MB, costs a few buffers."""
    arch = replace(TINY, num_hidden_layers=2, hidden_size=2048, intermediate_size=8192)
    folder = synthetic(tmp_path / "in", arch)
    argv = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / "out.gguf")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60_000  # KiB
