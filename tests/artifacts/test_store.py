"""The store: contents once, artifacts whole, nothing lost and nothing half-written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.artifacts import disk
from qwharf.artifacts.blobs import BlobRef
from qwharf.artifacts.records import artifact_id, check_name
from qwharf.artifacts.store import Store
from qwharf.errors import (
    ChecksumMismatch,
    InvalidFile,
    QwharfError,
    StorageError,
    UsageError,
)
from qwharf.types import Artifact, Format, StoredFile

Q8 = Format("gguf", "q8_0")
BF16 = Format("safetensors", "bf16")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def simple(store: Store, tmp_path: Path, data: bytes = b"weights", **provenance: str) -> Artifact:
    source = write(tmp_path / "in" / f"{sha(data)[:8]}.gguf", data)
    ref = store.put_file(source, "copy")
    return store.add("m", Q8, {"m.gguf": ref}, provenance, "m.gguf")


def leftovers(store: Store) -> list[Path]:
    return [p for p in (store.root / "tmp").rglob("*") if p.is_file() and p.suffix != ".lock"]


# ------------------------------------------------------------------------------------ put and add


def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    assert store.find("m", Q8) is None and store.get("ab") is None and store.artifacts() == ()
    assert store.verify() == [] and store.gc().files == 0
    assert not (tmp_path / "s").exists()


def test_link_shares_the_file_and_leaves_its_mode(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    source.chmod(0o640)
    ref = store.put_file(source)
    assert ref == BlobRef(sha256=sha(b"abc"), size_bytes=3, how="hard link")
    assert os.path.samestat(source.stat(), store.blobs.path(ref.sha256).stat())
    assert stat.S_IMODE(source.stat().st_mode) == 0o640


def test_copy_and_move_give_read_only_blobs(store: Store, tmp_path: Path) -> None:
    copied = store.put_file(write(tmp_path / "a", b"abc"), "copy")
    moved = store.put_file(write(tmp_path / "b", b"def"), "move")
    assert copied.how in ("copy", "reflink") and moved.how == "move"
    assert (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    for ref in (copied, moved):
        mode = stat.S_IMODE(store.blobs.path(ref.sha256).stat().st_mode)
        assert mode == 0o444


def test_same_content_is_one_blob(store: Store, tmp_path: Path) -> None:
    first = store.put_file(write(tmp_path / "a", b"abc"), "copy")
    second = store.put_file(write(tmp_path / "b", b"abc"), "link")
    third = store.put_file(write(tmp_path / "c", b"abc"), "move")
    assert (second.how, third.how) == ("already there", "already there")
    assert first.sha256 == second.sha256 and list(store.blobs.all()) == [first.sha256]
    assert not (tmp_path / "c").exists()


def test_another_file_system_means_a_copy(
    store: Store, tmp_path: Path, other_file_system: Path
) -> None:
    source = write(other_file_system / "a", b"far away")
    assert store.put_file(source, "link").how == "copy"
    assert store.put_file(write(other_file_system / "b", b"moved"), "move").how == "copy"
    assert source.exists() and not (other_file_system / "b").exists()


def test_wrong_hash_stores_nothing(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a", b"abc")
    for mode in ("link", "copy", "move"):
        with pytest.raises(ChecksumMismatch) as caught:
            store.put_file(source, mode, expected_sha256="0" * 64)  # type: ignore[arg-type]
        assert caught.value.expected == "0" * 64
    assert list(store.blobs.all()) == [] and leftovers(store) == [] and source.exists()


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_only_plain_files(store: Store, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InvalidFile) as caught:
        store.put_file(path)
    assert caught.value.subject == str(path)


def test_an_artifact_is_a_real_folder(store: Store, tmp_path: Path) -> None:
    files = {
        name: store.put_file(write(tmp_path / "in" / name, name.encode()))
        for name in ("config.json", "model.safetensors", "sub/part.safetensors")
    }
    made = store.add("qwen3:8b", BF16, files, {"source": "test"}, None)
    assert made.path.is_dir() and (made.path / "sub/part.safetensors").read_bytes() == (
        b"sub/part.safetensors"
    )
    assert made.size_bytes == sum(len(n) for n in files)
    assert made.id == artifact_id(made.files)
    lines = sorted(f"{f.sha256}  {f.name}\n" for f in made.files)
    assert made.id == sha("".join(lines).encode())
    again = Store(store.root)
    assert again.get(made.id) == again.get(made.id[:6]) == again.find("qwen3:8b", BF16) == made
    assert again.find("qwen3:8b", Q8) is None and again.find("qwen3:4b", BF16) is None
    assert again.artifacts() == (made,)
    again.check(made)


def test_same_files_under_two_models(store: Store, tmp_path: Path) -> None:
    ref = store.put_file(write(tmp_path / "a", b"abc"))
    one = store.add("one", Q8, {"a.gguf": ref}, {}, "a.gguf")
    two = store.add("two", Q8, {"a.gguf": ref}, {}, "a.gguf")
    store.add("two", Q8, {"a.gguf": ref}, {"source": "again"}, "a.gguf")
    assert one.id == two.id and one.path == two.path
    assert sorted(a.model for a in store.artifacts()) == ["one", "two"]
    found = store.find("two", Q8)
    assert found is not None and found.provenance == {"source": "again"}


def test_originals_are_found_before_conversions(store: Store, tmp_path: Path) -> None:
    original = simple(store, tmp_path, b"official")
    made = simple(store, tmp_path, b"made", converted_from="f" * 64)
    found = store.find("m", Q8)
    assert found is not None and found.id == original.id
    converted = store.find("m", Q8, origin={"converted_from": "f" * 64})
    assert converted is not None and converted.id == made.id
    assert store.find("m", Q8, origin={"converted_from": "e" * 64}) is None


def test_an_ambiguous_prefix_is_refused(store: Store, tmp_path: Path) -> None:
    seen: dict[str, str] = {}
    for n in range(40):
        id = simple(store, tmp_path, b"%d" % n).id
        if id[0] in seen:
            with pytest.raises(UsageError, match=id[0]):
                store.get(id[0])
            break
        seen[id[0]] = id
    assert store.get("") is None and store.get("../x") is None and store.get("sha256:" + id)


BAD_NAMES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../b",
    "a//b",
    "a/",
    ".",
    "a\\b",
    "C:x",
    "x\0",
    "nul.txt",
]
BAD_NAMES += ["a/con", "dot.", "sp ", "x" * 300, "a\nb", "\ud800"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_cannot_leave_the_folder(store: Store, tmp_path: Path, name: str) -> None:
    ref = store.put_file(write(tmp_path / "a", b"abc"))
    with pytest.raises(InvalidFile):
        store.add("m", BF16, {name: ref}, {}, None)
    assert store.artifacts() == ()


@given(st.text(max_size=40))
def test_accepted_names_stay_below_the_folder(name: str) -> None:
    try:
        check_name(name, subject="s")
    except InvalidFile:
        return
    base = Path("/base/folder")
    assert Path(os.path.normpath(base / name)).is_relative_to(base) and base / name != base


@pytest.mark.parametrize("names", [("A.json", "a.json"), ("a", "a/b"), ("A/x", "a")])
def test_colliding_names_are_refused(store: Store, tmp_path: Path, names: tuple[str, str]) -> None:
    ref = store.put_file(write(tmp_path / "a", b"abc"))
    with pytest.raises(InvalidFile, match="collide"):
        store.add("m", BF16, dict.fromkeys(names, ref), {}, None)


def test_add_needs_the_contents(store: Store) -> None:
    ghost = BlobRef(sha256="0" * 64, size_bytes=3, how="copy")
    with pytest.raises(StorageError):
        store.add("m", Q8, {"a.gguf": ghost}, {}, "a.gguf")
    with pytest.raises(InvalidFile):
        store.add("m", Q8, {}, {}, None)
    assert store.artifacts() == ()


# ------------------------------------------------------------------------------- damage is noticed


def test_editing_a_linked_source_is_noticed(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    made = store.add("m", Q8, {"a.gguf": store.put_file(source)}, {}, "a.gguf")
    time.sleep(0.02)
    source.write_bytes(b"abd")
    assert made.path.read_bytes() == b"abd"  # the same inode, so it shows through
    assert store.find("m", Q8) is None
    with pytest.raises(ChecksumMismatch) as caught:
        store.check(made)
    assert "store rm" in caught.value.hint
    problems = store.verify()
    assert [p.artifacts for p in problems] == [(made.id,)]
    assert sha(b"abd") in str(problems[0])
    assert store.get(made.id) == made  # still there to be looked at and removed


def test_edit_that_hides_its_time_is_found_by_verify(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    before = source.stat()
    store.add("m", Q8, {"a.gguf": store.put_file(source)}, {}, "a.gguf")
    source.write_bytes(b"xyz")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find("m", Q8) is not None  # the cheap look cannot see it
    assert len(store.verify()) == 1


def test_a_mere_touch_costs_one_reading(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    made = store.add("m", Q8, {"a.gguf": store.put_file(source)}, {}, "a.gguf")
    os.utime(source, (1, 1))
    assert not store.blobs.untouched(sha(b"abc"))
    assert store.find("m", Q8) == made
    assert store.blobs.untouched(sha(b"abc"))


def test_getting_it_again_repairs(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    made = store.add("m", Q8, {"a.gguf": store.put_file(source)}, {}, "a.gguf")
    source.write_bytes(b"damaged")
    assert store.find("m", Q8) is None
    ref = store.put_file(write(tmp_path / "again", b"abc"), "copy")
    assert ref.how in ("copy", "reflink")
    assert store.add("m", Q8, {"a.gguf": ref}, {}, "a.gguf").id == made.id
    assert made.path.read_bytes() == b"abc" and store.verify() == []
    assert source.read_bytes() == b"damaged"


def test_missing_links_are_mended(store: Store, tmp_path: Path) -> None:
    made = simple(store, tmp_path)
    made.path.unlink()
    assert [p.found for p in store.verify()] == ["no file"]
    assert store.find("m", Q8) == made and made.path.read_bytes() == b"weights"
    made.path.unlink()
    made.path.write_bytes(b"someone's own")
    assert store.find("m", Q8) == made and made.path.read_bytes() == b"weights"
    assert store.verify() == []


def test_missing_contents_are_told(store: Store, tmp_path: Path) -> None:
    made = simple(store, tmp_path)
    store.blobs.path(made.files[0].sha256).unlink()
    assert store.find("m", Q8) is None
    assert [p.found for p in store.verify()] == ["no file"]


def test_strange_files_in_an_artifact_are_told(store: Store, tmp_path: Path) -> None:
    made = simple(store, tmp_path)
    write(made.path.parent / "evil.py", b"x")
    assert "not part" in str(store.verify()[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.update(id="0" * 64),
        lambda d: d.update(surprise=1),
        lambda d: d.update(entry="../../x"),
        lambda d: d.update(labels=[]),
        lambda d: d["files"][0].update(name="../../x"),
        lambda d: d["files"][0].update(sha256="../../x"),
        lambda d: d.clear(),
    ],
)
def test_damaged_records(store: Store, tmp_path: Path, change: object) -> None:
    good, bad = simple(store, tmp_path, b"good"), simple(store, tmp_path, b"bad")
    path = store.records.path(bad.id)
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))
    assert store.artifacts() == (good,)
    with pytest.raises(InvalidFile) as caught:
        store.get(bad.id)
    assert caught.value.subject == str(path)
    assert any(p.path == str(path) for p in store.verify())
    with pytest.raises(InvalidFile):  # what the damaged record needs is unknown: collect nothing
        store.gc()
    store.remove(bad.id)
    assert store.gc().files == 1


@given(st.binary(max_size=200))
def test_any_bytes_as_a_record(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    write(store.records.folder / f"{'0' * 64}.json", data)
    assert store.artifacts() == ()
    with pytest.raises(InvalidFile):
        store.get("0")


# ------------------------------------------------------------------------------------- collection


def test_gc_collects_only_what_nothing_names(store: Store, tmp_path: Path) -> None:
    keep, drop = simple(store, tmp_path, b"keep" * 10), simple(store, tmp_path, b"drop" * 10)
    assert store.gc().files == 0
    store.remove(drop.id)
    assert store.get(drop.id) is None and not drop.path.exists()
    dry = store.gc(dry_run=True)
    assert (dry.files, dry.freed_bytes) == (1, 40)
    assert len(list(store.blobs.all())) == 2
    assert store.gc() == dry
    assert list(store.blobs.all()) == [keep.files[0].sha256]
    assert len(list(store.blobs.stamps.iterdir())) == 1
    assert store.verify() == [] and store.gc().files == 0


def test_gc_counts_no_bytes_that_live_elsewhere(store: Store, tmp_path: Path) -> None:
    source = write(tmp_path / "a.gguf", b"abc")
    made = store.add("m", Q8, {"a.gguf": store.put_file(source)}, {}, "a.gguf")
    assert store.disk_usage().shared_bytes == 3
    store.remove(made.id)
    assert (store.gc().freed_bytes, source.read_bytes()) == (0, b"abc")


def test_gc_keeps_what_a_running_command_brought(store: Store, tmp_path: Path) -> None:
    ref = store.put_file(write(tmp_path / "a", b"abc"), "copy")
    other = Store(store.root)
    assert other.gc().files == 0
    store.add("m", Q8, {"a.gguf": ref}, {}, "a.gguf")
    store.put_file(write(tmp_path / "b", b"never added"), "copy")
    store.close()
    assert other.gc().files == 1
    assert [a.model for a in other.artifacts()] == ["m"] and other.verify() == []


def test_gc_keeps_what_is_deployed(store: Store, tmp_path: Path) -> None:
    made = simple(store, tmp_path)
    store.records.delete(made.id)
    assert store.gc(in_use=[made.id]).files == 0
    assert made.path.read_bytes() == b"weights"
    assert store.gc().freed_bytes == 7 and not made.path.exists()


def test_gc_leaves_resumable_work_until_it_is_old(store: Store) -> None:
    part = write(store.folder("downloads") / "key.part", b"x" * 9)
    assert store.gc().files == 0
    assert store.gc(unfinished_after_s=-1, dry_run=True).freed_bytes == 9
    os.utime(part, (1, 1))
    from qwharf.artifacts.locks import locked

    with locked(part.with_suffix(".lock")):
        assert store.gc().files == 0
    assert store.gc().freed_bytes == 9 and not part.exists()


# --------------------------------------------------------------------------- the disk says no


def test_a_full_disk_is_refused_before_the_first_byte(
    store: Store, tmp_path: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(other_file_system / "a", b"x" * 5_000_000)
    monkeypatch.setattr(disk, "free_bytes", lambda _: 4_000_000)
    with pytest.raises(StorageError) as caught:
        store.put_file(source)
    assert caught.value.facts["free_bytes"] == 4_000_000 and leftovers(store) == []


def test_a_disk_that_fills_up_really(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "require_space", lambda *a, **k: None)
    store = Store(small_disk / "store")
    with pytest.raises(StorageError) as caught:
        store.put_file(write(tmp_path / "a", b"x" * 4_000_000))
    assert "store gc" in caught.value.hint
    assert list(store.blobs.all()) == [] and leftovers(store) == []
    assert store.put_file(write(tmp_path / "b", b"small")).how == "copy"


def test_a_closed_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the folder should be")
    with pytest.raises(StorageError):
        Store(tmp_path / "blocked" / "store").put_file(write(tmp_path / "a", b"x"))


def test_without_hard_links(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "hard_link", lambda *a: False)
    ref = store.put_file(write(tmp_path / "a", b"abc"))
    assert ref.how in ("copy", "reflink")
    made = store.add("m", BF16, {"sub/a.gguf": ref}, {}, "sub/a.gguf")
    assert made.path.read_bytes() == b"abc"
    assert store.find("m", BF16) == made and store.verify() == []
    moved = store.put_file(write(tmp_path / "b", b"def"), "move")
    assert moved.how in ("copy", "reflink") and not (tmp_path / "b").exists()

    def no_symlinks(*_: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", no_symlinks)
    copied = store.add("m2", BF16, {"b.gguf": moved}, {}, "b.gguf")
    assert not copied.path.is_symlink() and copied.path.read_bytes() == b"def"
    assert store.find("m2", BF16) == copied and store.verify() == []


# --------------------------------------------------------------------------------- many at once


def test_many_threads_put_and_add_the_same(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"in{i}", b"same" * 1000) for i in range(8)]
    stores = [Store(tmp_path / "s") for _ in range(4)]
    failures: list[BaseException] = []

    def work(i: int) -> None:
        try:
            store = stores[i % 4]
            for _ in range(5):
                ref = store.put_file(sources[i], "copy")
                store.add(f"m{i}", Q8, {"a.gguf": ref}, {}, "a.gguf")
                store.gc()
                assert store.find(f"m{i}", Q8) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(stores[0].blobs.all())) == 1 and len(stores[0].artifacts()) == 8
    assert stores[0].verify() == []
    for store in stores:
        store.close()


KILLED = """
import sys
from pathlib import Path
from qwharf.artifacts.store import Store
from qwharf.types import Format

root, sources = Path(sys.argv[1]), Path(sys.argv[2])
print("go", flush=True)
for round in range(10_000):
    store = Store(root)
    files = {p.name: store.put_file(p, "copy") for p in sorted(sources.iterdir())}
    made = store.add("m", Format("gguf", "q8_0"), files, {}, "0.gguf")
    if round % 2:
        store.remove(made.id)
        store.gc()
    store.close()
"""


def test_kill_at_any_moment(tmp_path: Path) -> None:
    sources = tmp_path / "in"
    expected = {}
    for n in range(4):
        data = os.urandom(200_000)
        write(sources / f"{n}.gguf", data)
        expected[f"{n}.gguf"] = data
    root = tmp_path / "store"
    for n in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root), str(sources)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"go\n"
        time.sleep(0.005 + 0.011 * n)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        store = Store(root)
        assert store.verify() == []
        found = store.find("m", Q8)
        if found is not None:
            assert {f.name: (found.path.parent / f.name).read_bytes() for f in found.files} == (
                expected
            )
        store.gc()
        assert store.verify() == []
        tmp = root / "tmp"
        assert not tmp.exists() or list(tmp.iterdir()) == []
        store.close()


def test_ids_do_not_depend_on_order() -> None:
    a = StoredFile(name="a", size_bytes=1, sha256="1" * 64)
    b = StoredFile(name="b", size_bytes=1, sha256="2" * 64)
    assert artifact_id([a, b]) == artifact_id([b, a]) != artifact_id([a])


def test_all_errors_are_ours() -> None:
    assert issubclass(StorageError, QwharfError)
