"""Whatever lies there, what comes back is an inspection or a typed error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.codec import encode
from qwharf.errors import InvalidFile, QwharfError
from qwharf.inspection import inspect

from .making import checkpoint, gguf_of


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("bad") / "source")


@pytest.fixture(scope="module")
def gguf(source: Path) -> Path:
    return gguf_of(source, source.parent / "model.gguf", "q8_0")


def survives(path: Path) -> None:
    try:
        found = inspect(path)
    except QwharfError as e:
        assert e.subject
        assert e.found
    else:
        json.dumps(encode(found), ensure_ascii=False, allow_nan=False).encode()


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_gguf_headers(gguf: Path, data: st.DataObject) -> None:
    raw = bytearray(gguf.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 3000) | st.integers(0, 40_000))
        raw[min(at, len(raw) - 1)] = data.draw(st.integers(0, 255))
    path = gguf.with_name("damaged.gguf")
    path.write_bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))])
    survives(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
KEYS = {
    "config.json": ("vocab_size", "torch_dtype", "license", "eos_token_id", "quantization_config"),
    "generation_config.json": ("temperature", "top_p", "top_k"),
    "tokenizer.json": ("model", "added_tokens"),
    "tokenizer_config.json": ("chat_template", "eos_token", "bos_token"),
}


@settings(max_examples=60)
@given(data=st.data())
def test_strange_values_in_json(source: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(KEYS)))
    path = source / file
    text = path.read_text("utf-8")
    try:
        changed = json.loads(text)
        changed[data.draw(st.sampled_from(KEYS[file]))] = data.draw(JSON)
        path.write_text(json.dumps(changed), "utf-8")
        survives(source)
    finally:
        path.write_text(text, "utf-8")


@pytest.mark.parametrize("name", ["absent", "absent.gguf", "absent.safetensors"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFile, match="no file"):
        inspect(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"no config\.json"):
        inspect(tmp_path)


def test_several_models_in_a_folder_are_named(gguf: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(gguf.read_bytes())
    with pytest.raises(InvalidFile, match=r"2 GGUF files: a\.gguf, b\.gguf"):
        inspect(tmp_path)


def test_a_missing_shard_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidFile, match="model-00001-of-00002"):
        inspect(tmp_path)
