"""Checkpoint folders: which files are read, and what a folder from outside cannot do."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError, UnsupportedArchitecture
from qwharf.formats.checkpoint import read_checkpoint, read_json
from qwharf.formats.safetensors import DTYPE_BYTES, SafetensorsWriter

from .bytes_by_hand import safetensors
from .test_config import DENSE

INDEX = "model.safetensors.index.json"


def weights(path: Path, *names: str, dtype: str = "BF16") -> None:
    with SafetensorsWriter(path, [(n, dtype, [1]) for n in names]) as writer:
        writer.write(bytes(len(names) * DTYPE_BYTES[dtype]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    weights(tmp_path / "model.safetensors", "a", "b")
    return tmp_path


@pytest.fixture
def sharded(folder: Path) -> Path:
    (folder / "model.safetensors").unlink()
    weights(folder / "model-00001-of-00002.safetensors", "a")
    weights(folder / "model-00002-of-00002.safetensors", "b")
    index(
        folder, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    )
    return folder


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_one_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"top_k": 20}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "t"}')
    found = read_checkpoint(folder)
    assert str(found.format) == "safetensors:bf16" and found.architecture.num_hidden_layers == 28
    assert found.weight_files == (folder / "model.safetensors",)
    assert found.generation_config == {"top_k": 20} and found.chat_template == "t"
    assert {n: p.name for n, (p, _) in found.tensors.items()} == {
        "a": "model.safetensors",
        "b": "model.safetensors",
    }


def test_shards(sharded: Path) -> None:
    found = read_checkpoint(sharded)
    assert [p.name[6:11] for p in found.weight_files] == ["00001", "00002"]
    assert found.tensors["b"][0].name == "model-00002-of-00002.safetensors"


def test_a_cache_of_links(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The Hugging Face cache keeps links to blobs elsewhere."""
    blobs = tmp_path_factory.mktemp("blobs")
    for path in list(sharded.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert len(read_checkpoint(sharded).tensors) == 2


def test_the_weights_tell_where_the_config_does_not(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(DENSE | {"torch_dtype": None}))
    assert str(read_checkpoint(folder).format) == "safetensors:bf16"
    weights(folder / "model.safetensors", "a", dtype="F32")
    assert str(read_checkpoint(folder).format) == "safetensors:f32"
    weights(folder / "model.safetensors", "a", dtype="U8")
    with pytest.raises(InvalidFile, match="U8"):
        read_checkpoint(folder)
    weights(folder / "model.safetensors")
    with pytest.raises(InvalidFile, match="no tensors"):
        read_checkpoint(folder)


def test_no_config(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(InvalidFile, match=r"no config\.json beside model\.gguf"):
        read_checkpoint(tmp_path)
    with pytest.raises(InvalidFile, match=r"no config\.json"):
        read_checkpoint(tmp_path / "none")
    with pytest.raises(InvalidFile):
        read_checkpoint(tmp_path / "model.gguf")


def test_another_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["MistralForCausalLM"]}')
    with pytest.raises(UnsupportedArchitecture, match="MistralForCausalLM") as caught:
        read_checkpoint(folder)
    assert str(folder / "config.json") in str(caught.value)


def test_pickles_are_never_loaded(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidFile, match=r"no model\.safetensors"):
        read_checkpoint(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InvalidFile, match=r"pytorch_model\.bin, which is a pickle"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/passwd",
        "/tmp/x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "model.safetensors\0",
        "model.safetensors/",
        "model.bin",
        ".safetensors",
        "..safetensors",
        "-.safetensors",
        "",
        "x" * 300 + ".safetensors",
        "módel.safetensors",
        "model.safetensors\n",
    ],
)
def test_an_index_names_files_of_its_folder_only(folder: Path, name: str) -> None:
    index(folder, {"a": "model.safetensors", "b": name})
    with pytest.raises(InvalidFile) as caught:
        read_checkpoint(folder)
    assert "plain file names" in caught.value.expected and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "{", "null", '{"weight_map": {}}', '{"weight_map": []}'),
        *('{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["model.safetensors"]}}'),
    ],
)
def test_a_broken_index(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    with pytest.raises(InvalidFile):
        read_checkpoint(folder)


def test_shards_and_index_must_agree(sharded: Path) -> None:
    first, second = (sharded / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    weights(second, "a", "b")
    with pytest.raises(InvalidFile, match="tensor 'a', which"):
        _ = read_checkpoint(sharded).tensors
    weights(second, "c")
    with pytest.raises(InvalidFile, match="no tensor 'b'"):
        _ = read_checkpoint(sharded).tensors
    index(sharded, {"a": second.name, "c": first.name})
    with pytest.raises(InvalidFile, match="no tensor"):
        _ = read_checkpoint(sharded).tensors
    second.unlink()
    with pytest.raises(InvalidFile, match="no file") as caught:
        read_checkpoint(sharded)
    assert caught.value.facts["missing"] == [second.name]


def test_a_cut_shard(sharded: Path) -> None:
    path = sharded / "model-00002-of-00002.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(InvalidFile, match="00002-of-00002"):
        _ = read_checkpoint(sharded).tensors


def test_files_that_are_no_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(InvalidFile):
        read_checkpoint(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(InvalidFile):
        read_checkpoint(folder)
    (folder / "config.json").rmdir()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(InvalidFile):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff\xfe{\0}\0", b"{" * 10**6, b"[" * 10**6, b'{"a":' * 10**5,
        b'{"a": ' + b"1" * 5000, b"[1]", b"1", b'{"a": 1} x', b'{"a": NaN',
        b"[" + b"[]," * (1 << 22) + b"[]]", b"\0",
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_json_object(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(raw)
    with pytest.raises(InvalidFile) as caught:
        read_json(path)
    assert caught.value.found and len(str(caught.value)) < 1000


def test_a_huge_json_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"{")
    os.truncate(path, 1 << 40)
    with pytest.raises(InvalidFile, match="1,099,511,627,776 bytes"):
        read_json(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    name=st.sampled_from(["config.json", INDEX, "model.safetensors", "tokenizer_config.json"])
    | st.just("generation_config.json"),
    raw=st.binary(max_size=60)
    | st.sampled_from(
        [b"{}", b"[]", b"null", b'{"chat_template": 5}', b'{"weight_map": {"a": "b"}}']
    )
    | st.just(safetensors({}, b""))
    | st.just(struct.pack("<Q", 2**40)),
)
def test_any_file_replaced(folder: Path, name: str, raw: bytes) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / name).write_bytes(raw)
    with contextlib.suppress(QwharfError):
        _ = read_checkpoint(folder).tensors
    (folder / name).unlink()
    for other, data in before.items():
        (folder / other).write_bytes(data)
