"""Importing what is on this disk: shared where possible, refused where it is not what it claims."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwharf.artifacts import disk, hf_cache
from qwharf.artifacts.importing import Imported, import_path
from qwharf.artifacts.placing import place
from qwharf.artifacts.store import Store
from qwharf.errors import (
    ChecksumMismatch,
    Conflict,
    InvalidFile,
    QwharfError,
    UnknownModel,
    UnsupportedArchitecture,
)
from qwharf.types import Format

from . import models

COMMIT = "c1899de289a04d12100db370d81485cdf75e47ca"
KEPT = {"LICENSE", "config.json", "generation_config.json", "tokenizer_config.json"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def bring(store: Store, path: Path) -> Imported:
    return import_path(store, path, model="mine")


def nothing_stored(store: Store) -> bool:
    return store.artifacts() == () and list(store.blobs.all()) == []


# ---------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_is_hard_linked(store: Store, tmp_path: Path, shards: int) -> None:
    folder = models.checkpoint(tmp_path / "fine-tune", shards=shards)
    told: list[tuple[str, int, int | None]] = []
    done = import_path(store, folder, model="mine", progress=lambda *a: told.append(a))
    artifact = done.artifact
    assert done.how == "hard-linked, no bytes copied"
    weights = {p.name for p in folder.glob("model*")}
    assert {f.name for f in artifact.files} == KEPT | weights
    assert artifact.format == Format("safetensors", "bf16") and artifact.model == "mine"
    assert all((artifact.path / n).samefile(folder / n) for n in weights)
    assert artifact.provenance["source"] == str(folder)
    assert told[-1][1] == told[-1][2] == artifact.size_bytes
    again = bring(store, folder)
    assert again.artifact.id == artifact.id
    assert again.how == "all of it was in the store already"
    assert store.verify() == []


def test_the_same_content_twice_is_one_blob(store: Store, tmp_path: Path) -> None:
    one = bring(store, models.checkpoint(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "config.json").write_text(json.dumps({**models.CONFIG, "note": 1}))
    two = bring(store, tmp_path / "two")
    assert one.artifact.id != two.artifact.id
    assert len(list(store.blobs.all())) == len(one.artifact.files) + 1


def test_a_copy_is_said_aloud(store: Store, other_file_system: Path) -> None:
    done = bring(store, models.checkpoint(other_file_system / "far"))
    assert "copied" in done.how and "another file system" in done.how
    assert done.artifact.provenance["how"] == done.how


def test_links_out_of_the_folder_are_refused(store: Store, tmp_path: Path) -> None:
    folder = models.checkpoint(tmp_path / "m")
    secret = tmp_path / "secret"
    secret.write_text("key")
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(secret)
    with pytest.raises(InvalidFile, match="symbolic link"):
        bring(store, folder)
    (folder / "LICENSE").unlink()
    real = folder / "model.safetensors"
    real.rename(tmp_path / "elsewhere.safetensors")
    real.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(InvalidFile, match="symbolic link"):
        bring(store, folder)
    assert nothing_stored(store)
    real.unlink()
    (tmp_path / "elsewhere.safetensors").rename(folder / "runs" / "x.safetensors")
    real.symlink_to("runs/x.safetensors")
    assert bring(store, folder).artifact.model == "mine"


Change = Callable[[Path], object]


def edit(folder: Path, **changes: object) -> None:
    config = {**models.CONFIG, **changes}
    kept = {k: v for k, v in config.items() if v is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def truncate(path: Path, by: int) -> None:
    path.write_bytes(path.read_bytes()[:-by])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda f: (f / "config.json").unlink(), InvalidFile),
        (lambda f: (f / "config.json").write_text("{"), InvalidFile),
        (lambda f: edit(f, architectures=["LlamaForCausalLM"]), UnsupportedArchitecture),
        (lambda f: edit(f, head_dim=None), InvalidFile),
        (lambda f: (f / "model.safetensors").unlink(), InvalidFile),
        (lambda f: truncate(f / "model.safetensors", 1), InvalidFile),
        (lambda f: (f / "model.safetensors").write_bytes(b""), InvalidFile),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), InvalidFile),
    ],
)
def test_broken_folders_store_nothing(
    store: Store, tmp_path: Path, change: Change, kind: type[QwharfError]
) -> None:
    folder = models.checkpoint(tmp_path / "m")
    change(folder)
    with pytest.raises(kind) as caught:
        bring(store, folder)
    assert str(folder) in caught.value.subject and nothing_stored(store)


@pytest.mark.parametrize("name", ["absent", "absent.gguf"])
def test_what_is_not_there(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownModel):
        bring(store, tmp_path / name)


# ------------------------------------------------------------------------------------------- GGUF


def test_a_gguf_file(store: Store, tmp_path: Path) -> None:
    path = models.gguf(tmp_path / "tiny.gguf", file_type=7)
    artifact = bring(store, path).artifact
    assert artifact.format == Format("gguf", "q8_0")
    assert artifact.path.name == "tiny.gguf" and artifact.path.samefile(path)


def test_the_name_tells_what_the_header_does_not(store: Store, tmp_path: Path) -> None:
    named = models.gguf(tmp_path / "x-Q4_K_M.gguf", file_type=None)
    assert bring(store, named).artifact.format == Format("gguf", "q4_k_m")
    with pytest.raises(InvalidFile, match="file_type"):
        bring(store, models.gguf(tmp_path / "x.gguf", file_type=None))
    with pytest.raises(InvalidFile, match="file_type"):
        bring(store, models.gguf(tmp_path / "y.gguf", file_type=77))


def test_a_linked_gguf_is_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    real = models.gguf(tmp_path / "far" / "sha256-abc", file_type=1)
    link = tmp_path / "tiny-f16.gguf"
    link.symlink_to(real)
    artifact = bring(store, link).artifact
    assert artifact.path.name == "tiny-f16.gguf" and artifact.path.samefile(real)
    blob = bring(store, real).artifact
    assert blob.path.name == "sha256-abc.gguf" and blob.path.samefile(real)
    with pytest.raises(InvalidFile, match="begin"):
        bring(store, Path(__file__))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: truncate(p, 40_000), InvalidFile),
        (lambda p: p.write_bytes(b"GGUF"), InvalidFile),
        (lambda p: p.write_bytes(b"not one at all"), InvalidFile),
        (lambda p: models.gguf(p, architecture="llama"), UnsupportedArchitecture),
    ],
)
def test_broken_ggufs_store_nothing(
    store: Store, tmp_path: Path, change: Change, kind: type[QwharfError]
) -> None:
    path = models.gguf(tmp_path / "a.gguf")
    change(path)
    with pytest.raises(kind):
        bring(store, path)
    assert nothing_stored(store)


def test_split_files(store: Store, tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2))
    models.gguf(first, file_type=7)
    with pytest.raises(InvalidFile, match="00002-of-00002"):
        bring(store, first)
    shutil.copy(first, second)
    for part in (first, second, tmp_path):
        artifact = bring(store, part).artifact
        assert artifact.path.name == first.name and len(artifact.files) == 2
    second.unlink()
    second.symlink_to(models.gguf(tmp_path.parent / f"{tmp_path.name}-out.gguf"))
    with pytest.raises(InvalidFile, match="symbolic link"):
        bring(store, first)


def test_a_folder_of_many_ggufs_is_ambiguous(store: Store, tmp_path: Path) -> None:
    models.gguf(tmp_path / "d" / "a.gguf")
    assert bring(store, tmp_path / "d").artifact.path.name == "a.gguf"
    models.gguf(tmp_path / "d" / "b.gguf")
    with pytest.raises(InvalidFile, match=r"2 \.gguf files") as caught:
        bring(store, tmp_path / "d")
    assert str(tmp_path / "d" / "a.gguf") in caught.value.hint


# ------------------------------------------------------------------------------ Hugging Face cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one snapshot, as `huggingface_hub` leaves it."""
    home = tmp_path / "hf"
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = home / "hub" / "models--Qwen--Qwen3-Tiny"
    snapshot = repository / "snapshots" / COMMIT
    made = models.checkpoint(tmp_path / "plain", shards=2)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in sorted(made.iterdir()):
        if path.is_dir():
            continue
        large = path.suffix == ".safetensors"
        name = disk.sha256_of(path) if large else disk.sha256_of(path)[:40]
        path.rename(repository / "blobs" / name)
        (snapshot / path.name).symlink_to(f"../../blobs/{name}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_cache_is_imported(store: Store, cache: Path) -> None:
    artifact = bring(store, cache).artifact
    assert artifact.provenance["repository"] == "Qwen/Qwen3-Tiny"
    assert artifact.provenance["revision"] == COMMIT
    for file in artifact.files:
        blob = (cache / "snapshots" / COMMIT / file.name).resolve()
        assert (artifact.path / file.name).samefile(blob)
        assert not (artifact.path / file.name).is_symlink()
    assert bring(store, cache / "snapshots" / COMMIT).artifact.id == artifact.id


def test_a_damaged_cache_is_noticed(store: Store, cache: Path) -> None:
    blob = (cache / "snapshots" / COMMIT / "model-00001-of-00002.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ChecksumMismatch) as caught:
        bring(store, cache)
    assert caught.value.expected == blob.name and store.artifacts() == ()


def test_links_out_of_the_cache_are_refused(store: Store, cache: Path, tmp_path: Path) -> None:
    link = cache / "snapshots" / COMMIT / "config.json"
    outside = tmp_path / "outside.json"
    outside.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(InvalidFile, match="symbolic link"):
        bring(store, cache)


def test_which_snapshot(store: Store, cache: Path) -> None:
    other = cache / "snapshots" / ("0" * 40)
    other.mkdir()
    assert bring(store, cache).artifact.provenance["revision"] == COMMIT
    (cache / "refs" / "main").unlink()
    with pytest.raises(InvalidFile, match="2 snapshots"):
        bring(store, cache)
    other.rmdir()
    assert bring(store, cache).artifact.provenance["revision"] == COMMIT


def test_finding_in_the_cache(cache: Path) -> None:
    snapshot = cache / "snapshots" / COMMIT
    assert hf_cache.find_snapshot("Qwen/Qwen3-Tiny") == snapshot
    assert hf_cache.find_snapshot("Qwen/Qwen3-Tiny", COMMIT) == snapshot
    assert hf_cache.find_snapshot("Qwen/Qwen3-Tiny", "../../x") is None
    assert hf_cache.find_snapshot("Qwen/Qwen3-Tiny", "v1") is None
    assert hf_cache.find_snapshot("Qwen/Other") is None
    blob = next(p for p in (cache / "blobs").iterdir() if len(p.name) == 64)
    assert hf_cache.find_blob("Qwen/Qwen3-Tiny", blob.name) == blob
    assert hf_cache.find_blob("Qwen/Qwen3-Tiny", "0" * 64) is None
    assert hf_cache.find_blob("Qwen/Qwen3-Tiny", "../x") is None


def test_offline_a_cached_snapshot_is_as_good_as_a_pull(
    store: Store, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwharf.artifacts.pulling import pull
    from qwharf.types import Repository

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    repository = Repository(repo_id="Qwen/Qwen3-Tiny", format=Format("safetensors", "bf16"))
    made = pull(repository, model="tiny", store=store)
    assert made.provenance["revision"] == COMMIT and made.model == "tiny"


# ---------------------------------------------------------------------------------------- placing


def test_placing_a_file_and_a_folder(store: Store, tmp_path: Path) -> None:
    file = bring(store, models.gguf(tmp_path / "a.gguf")).artifact
    assert place(file, tmp_path / "out" / "b.gguf") == "hard link"
    assert (tmp_path / "out" / "b.gguf").read_bytes() == file.path.read_bytes()
    place(file, tmp_path / "out")
    assert (tmp_path / "out" / "a.gguf").is_file()
    folder = bring(store, models.checkpoint(tmp_path / "m")).artifact
    place(folder, tmp_path / "placed")
    assert {p.name for p in (tmp_path / "placed").iterdir()} == {f.name for f in folder.files}
    with pytest.raises(Conflict):
        place(folder, tmp_path / "placed")
    with pytest.raises(Conflict):
        place(file, tmp_path / "out" / "b.gguf")


def test_placing_far_away(store: Store, tmp_path: Path, other_file_system: Path) -> None:
    file = bring(store, models.gguf(tmp_path / "a.gguf")).artifact
    assert place(file, other_file_system / "b.gguf") == "copy"
    assert [p.name for p in other_file_system.iterdir()] == ["b.gguf"]
