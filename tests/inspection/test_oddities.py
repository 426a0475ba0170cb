"""What is odd is said, and what is only unusual does not stop the rest from being shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwharf.formats.gguf_writer import gguf_header
from qwharf.inspection import Inspection, inspect

from .making import (
    Metadata,
    Tensors,
    checkpoint,
    copied,
    edited_gguf,
    edited_json,
    gguf_of,
    rewritten,
    safetensors,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("odd") / "source")


@pytest.fixture(scope="module")
def gguf(source: Path) -> Path:
    return gguf_of(source, source.parent / "model.gguf")


def remarks(found: Inspection) -> str:
    return "\n".join(o.what for o in found.oddities)


def of_json(file: str, **changes: Any) -> Callable[[Path], object]:
    return lambda folder: edited_json(folder, file, **changes)


def of_tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(tensors: dict[str, Any]) -> None:
        change(tensors)

    return lambda folder: rewritten(folder, apply)


NORM = "model.norm.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_tensors(lambda t: t.pop(NORM)), "1 tensor of 24 missing: model.norm.weight"),
        (
            of_tensors(lambda t: t.update({"model.vision.weight": ("F32", (3,))})),
            "that no Qwen3 has: model.vision.weight",
        ),
        (
            of_tensors(lambda t: t.update({NORM: ("BF16", (7,))})),
            "model.norm.weight [7] instead of [256]",
        ),
        (
            of_tensors(lambda t: t.update({"lm_head.weight": t[EMBEDDING]})),
            "lm_head.weight is stored although the embeddings are tied",
        ),
        (of_json("generation_config.json", temperature=1.3), "none of Qwen's: temperature 1.3"),
        (
            lambda folder: (folder / "generation_config.json").unlink(),
            "no generation defaults (generation_config.json)",
        ),
        (
            of_json("tokenizer_config.json", eos_token="<|endoftext|>"),
            "its end token is <|endoftext|>, not <|im_end|>",
        ),
        (of_json("tokenizer_config.json", chat_template=None), "no chat template"),
        (
            of_json("tokenizer_config.json", chat_template="{{ messages }}"),
            "a chat template unlike any of Qwen3's",
        ),
        (
            of_json(
                "config.json",
                rope_scaling={
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 2048,
                },
            ),
            "YaRN x4 is baked in",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), "pickles beside"),
    ],
)
def test_folders(source: Path, tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    folder = copied(source, tmp_path / "changed")
    before = remarks(inspect(folder))
    change(folder)
    found = inspect(folder)
    assert said in remarks(found)
    assert said not in before
    assert found.what == "model"
    assert found.architecture is not None


def test_an_added_token_is_named(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "added")
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    data["added_tokens"].append({"id": 400, "content": "<|mine|>", "special": True})
    path.write_text(json.dumps(data), "utf-8")
    found = inspect(folder)
    assert found.vocabulary is not None
    assert found.vocabulary.added == ("<|mine|>",)
    assert "1 added token: <|mine|>" in remarks(found)
    assert "token ids up to 400, but 320 rows of the embedding" in remarks(found)


def test_an_index_that_lies(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "index")
    index = {"weight_map": {EMBEDDING: "model.safetensors", "absent": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = remarks(inspect(folder))
    assert "1 tensors are not where the index says: absent" in said
    assert "23 tensors that the index does not name" in said


def test_tensors_that_come_twice(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path / "twice")
    safetensors(folder / "more.safetensors", {NORM: ("BF16", (256,))})
    index = {"weight_map": {EMBEDDING: "model.safetensors", NORM: "more.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "tensors that come twice: model.norm.weight in" in remarks(inspect(folder))


# ------------------------------------------------------------------------------------------- GGUF


def put(key: str, value: Any) -> Callable[[Metadata, Tensors], None]:
    def change(metadata: Metadata, tensors: Tensors) -> None:
        if value is None:
            del metadata[key]
        else:
            metadata[key] = (metadata[key][0], value)

    return change


def without(name: str) -> Callable[[Metadata, Tensors], None]:
    def change(metadata: Metadata, tensors: Tensors) -> None:
        tensors[:] = [t for t in tensors if t[0] != name]

    return change


def as_f16(part: str) -> Callable[[Metadata, Tensors], None]:
    from qwharf.formats.ggml_types import GGML_TYPES

    def change(metadata: Metadata, tensors: Tensors) -> None:
        tensors[:] = [(n, s, GGML_TYPES["F16"] if part in n else t) for n, s, t in tensors]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_f16("attn_v.weight"), "attn_v is F16 in 2 tensors, where Q4_K_M has Q4_K or Q6_K"),
        (without("blk.1.attn_q.weight"), "1 tensor of 24 missing: blk.1.attn_q.weight"),
        (put("qwen3.attention.key_length", None), "no qwen3.attention.key_length"),
        (put("general.file_type", None), "no general.file_type"),
        (put("general.sampling.temp", 0.1), "none of Qwen's: temperature 0.1"),
        (put("tokenizer.chat_template", None), "no chat template"),
        (put("tokenizer.ggml.eos_token_id", 0), "its end token is"),
    ],
)
def test_gguf_files(
    gguf: Path,
    tmp_path: Path,
    change: Callable[[Metadata, Tensors], None],
    said: str,
) -> None:
    assert said not in remarks(inspect(edited_gguf(gguf, tmp_path / "sound.gguf")))
    found = inspect(edited_gguf(gguf, tmp_path / "changed.gguf", change))
    assert said in remarks(found)


def test_another_architecture_is_shown_and_called_one(gguf: Path, tmp_path: Path) -> None:
    change = put("general.architecture", "llama")
    found = inspect(edited_gguf(gguf, tmp_path / "llama.gguf", change))
    assert found.architecture is None
    assert "not a Qwen3 model: found architecture 'llama'" in remarks(found)
    assert len(found.tensors) == 24
    assert found.by_kind


def test_so_is_a_folder_of_another_architecture(source: Path, tmp_path: Path) -> None:
    folder = edited_json(
        copied(source, tmp_path / "llama"),
        "config.json",
        architectures=["LlamaForCausalLM"],
        model_type="llama",
    )
    found = inspect(folder)
    assert "LlamaForCausalLM" in remarks(found)
    assert found.metadata["model_type"] == "llama"
    assert len(found.tensors) == 24


def test_splits_are_seen_whole(gguf: Path, tmp_path: Path) -> None:
    from qwharf.formats.gguf import read_gguf

    file = read_gguf(gguf, keep_arrays=True)
    tensors = [(t.name, t.shape, t.type) for t in file.tensors.values()]
    metadata = {k: (file.kinds[k], v) for k, v in file.metadata.items()}
    for n, part in enumerate((tensors[:9], tensors[9:])):
        keys: Metadata = {
            "split.no": ("u16", n),
            "split.count": ("u16", 2),
            "split.tensors.count": ("i32", len(tensors)),
        }
        header = gguf_header((metadata if n == 0 else {}) | keys, part)
        path = tmp_path / f"model-{n + 1:05d}-of-00002.gguf"
        path.write_bytes(header.data + bytes(header.size_bytes - len(header.data)))
    whole = inspect(gguf)
    for path in (*sorted(tmp_path.glob("*.gguf")), tmp_path):
        found = inspect(path)
        assert [f.tensors for f in found.files] == [9, 15]
        assert found.by_kind == whole.by_kind
        assert remarks(found) == remarks(whole)


# ------------------------------------------------------------------------------- what is no model


def test_a_single_safetensors_file(source: Path, tmp_path: Path) -> None:
    alone = tmp_path / "some.safetensors"
    shutil.copy(source / "model.safetensors", alone)
    found = inspect(alone)
    assert (found.what, found.container, found.oddities) == ("weights", "safetensors", ())
    assert len(found.tensors) == 24
    within = inspect(source / "model.safetensors")
    assert "one weight file of the checkpoint source" in remarks(within)


def test_an_adapter(tmp_path: Path) -> None:
    at = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    tensors = {
        at.format(n, which): ("F32", (8, 256) if which == "A" else (256, 8))
        for n in range(3)
        for which in "AB"
    }
    safetensors(tmp_path / "adapter_model.safetensors", tensors)
    config = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "Qwen/Qwen3-8B",
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        found = inspect(path)
        assert found.what == "adapter"
        assert found.adapter is not None
        assert (found.adapter.rank, found.adapter.layers) == (8, (0, 1, 2))
        assert found.adapter.modules == ("attn_q",)
        assert found.adapter.parameters == 3 * 2 * 8 * 256
    whole = inspect(tmp_path).adapter
    assert whole is not None
    assert (whole.alpha, whole.base) == (16.0, "Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    ("kind", "what"), [("adapter", "adapter"), ("imatrix", "importance matrix")]
)
def test_other_gguf_files(tmp_path: Path, kind: str, what: str) -> None:
    from qwharf.formats.ggml_types import GGML_TYPES

    metadata: Metadata = {
        "general.architecture": ("str", "qwen3"),
        "general.type": ("str", kind),
        "adapter.lora.alpha": ("f32", 16.0),
    }
    parts = ("lora_a", "lora_b") if kind == "adapter" else ("in_sum2", "counts")
    tensors: Tensors = [
        (f"blk.0.attn_q.weight.{part}", shape, GGML_TYPES["F32"])
        for part, shape in zip(parts, ((8, 256), (256, 8)), strict=True)
    ]
    header = gguf_header(metadata, tensors)
    path = tmp_path / "it.gguf"
    path.write_bytes(header.data + bytes(header.size_bytes - len(header.data)))
    found = inspect(path)
    assert found.what == what
    assert {t.kind for t in found.tensors} == {"attn_q"}
    if found.adapter is not None:
        assert (found.adapter.rank, found.adapter.alpha) == (8, 16.0)


def test_a_file_of_vocabulary_alone(gguf: Path, tmp_path: Path) -> None:
    def nothing_else(metadata: Metadata, tensors: Tensors) -> None:
        tensors.clear()

    found = inspect(edited_gguf(gguf, tmp_path / "vocabulary.gguf", nothing_else))
    assert found.what == "vocabulary"
    assert found.vocabulary is not None
    assert found.vocabulary.tokens == 299
