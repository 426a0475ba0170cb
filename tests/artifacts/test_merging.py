"""Parts of a GGUF file put together: the same tensors, one file, kept once in the store."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.artifacts.importing import import_path
from qwharf.artifacts.merging import in_parts, merge_artifact, merged_before
from qwharf.artifacts.store import Store
from qwharf.errors import InvalidFile, StorageError
from qwharf.formats.gguf import all_tensors, architecture_from_gguf, read_gguf
from qwharf.formats.gguf_merge import PART_KEYS, merge_gguf
from qwharf.testing import write_parts

from . import models

GGUF_SPLIT = os.environ.get("QWHARF_GGUF_SPLIT") or shutil.which("llama-gguf-split")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = models.gguf(tmp_path_factory.mktemp("whole") / "tiny-F32.gguf")
    start = read_gguf(path).data_offset
    data = np.random.default_rng(0).normal(size=(path.stat().st_size - start) // 4)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data.astype("<f4").tobytes())
    return path


@given(data=st.data())
def test_splitting_and_merging_gives_the_very_file(
    data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count = len(read_gguf(whole).tensors)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), min_size=1, max_size=3)))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, count], strict=True)]
    folder = tmp_path_factory.mktemp("parts")
    first = write_parts(whole, folder, sizes)
    merge_gguf(first, folder / "out.gguf")
    assert (folder / "out.gguf").read_bytes() == whole.read_bytes()


def test_any_part_names_the_whole(whole: Path, tmp_path: Path) -> None:
    count = len(read_gguf(whole).tensors)
    first = write_parts(whole, tmp_path, [1, count - 1])
    told: list[tuple[int, int]] = []
    merge_gguf(
        first.with_name(first.name.replace("00001-of", "00002-of")),
        tmp_path / "out.gguf",
        lambda done, total: told.append((done, total)),
    )
    made = read_gguf(tmp_path / "out.gguf")
    assert not any(key in made.metadata for key in PART_KEYS)
    assert architecture_from_gguf(made) == architecture_from_gguf(read_gguf(first))
    assert told[-1][0] == told[-1][1] == sum(t.size_bytes for t in made.tensors.values())


def test_what_cannot_be_merged_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    count = len(read_gguf(whole).tensors)
    out = tmp_path / "out.gguf"
    with pytest.raises(InvalidFile, match="in parts"):
        merge_gguf(whole, out)
    first = write_parts(whole, tmp_path / "a", [2, count - 2])
    other = write_parts(whole, tmp_path / "b", [3, count - 3])
    second = first.with_name(first.name.replace("00001-of", "00002-of"))
    shutil.copy(other.with_name(second.name), second)  # has one tensor fewer
    with pytest.raises(InvalidFile, match="tensors in all parts"):
        merge_gguf(first, out)
    second.write_bytes(second.read_bytes()[:-2000])
    with pytest.raises(InvalidFile):
        merge_gguf(first, out)
    second.unlink()
    with pytest.raises(InvalidFile, match="00002-of"):
        merge_gguf(first, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_an_artifact_is_merged_once_beside_its_parts(whole: Path, tmp_path: Path) -> None:
    count = len(read_gguf(whole).tensors)
    first = write_parts(whole, tmp_path / "parts", [1, count - 1])
    with Store(tmp_path / "store") as store:
        parts = import_path(store, first, model="qwen3:tiny").artifact
        assert in_parts(parts)
        assert merged_before(store, parts) is None
        made = merge_artifact(store, parts)
        assert not in_parts(made)
        assert made.path.name == "tiny-F32.gguf"
        assert made.path.read_bytes() == whole.read_bytes()
        assert (made.model, made.format) == (parts.model, parts.format)
        assert merge_artifact(store, parts).id == made.id
        assert merged_before(store, parts) == made
        found = store.find(parts.model, parts.format)
        assert found is not None and found.id == parts.id, "engines that take parts get those"
        assert not list(store.folder("work").iterdir())


def test_a_full_disk_is_told_before_the_first_byte(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(read_gguf(whole).tensors)
    first = write_parts(whole, tmp_path / "parts", [1, count - 1])
    with Store(tmp_path / "store") as store:
        parts = import_path(store, first, model="qwen3:tiny").artifact
        monkeypatch.setattr("qwharf.artifacts.disk.free_bytes", lambda folder: 1000)
        with pytest.raises(StorageError, match="free"):
            merge_artifact(store, parts)
        assert not list(store.folder("work").iterdir())


@pytest.mark.skipif(GGUF_SPLIT is None, reason="no llama-gguf-split on PATH")
def test_llama_cpp_merges_to_the_same(whole: Path, tmp_path: Path) -> None:
    """Its tool keeps its own keys, with which the header is longer."""
    count = len(read_gguf(whole).tensors)
    first = write_parts(whole, tmp_path, [2, 3, count - 5])
    merge_gguf(first, tmp_path / "ours.gguf")
    theirs = tmp_path / "theirs.gguf"
    subprocess.run(
        [str(GGUF_SPLIT), "--merge", str(first), str(theirs)], check=True, capture_output=True
    )
    one, other = (read_gguf(tmp_path / f"{n}.gguf", keep_arrays=True) for n in ("ours", "theirs"))
    kept = {k: v for k, v in other.metadata.items() if k not in PART_KEYS}
    assert one.metadata == kept
    assert list(all_tensors(one)) == list(all_tensors(other))
    data = [p.read_bytes()[f.data_offset :] for p, f in ((one.path, one), (theirs, other))]
    assert data[0] == data[1]
