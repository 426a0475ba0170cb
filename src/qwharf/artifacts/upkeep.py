"""Looking after the store: read everything again, collect what nothing needs, count bytes."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from qwharf.artifacts import disk, locks, scratch
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.records import Record
from qwharf.artifacts.store import Freed, Problem, Store, Usage
from qwharf.errors import InvalidFile

UNFINISHED = ("downloads", "work")

Inode = tuple[int, int]


def verify(store: Store, progress: Progress | None = None) -> list[Problem]:
    """Read every content of ``store`` again and compare it with its sha256.

    Also looked at: records that cannot be read, contents that are missing, files in the folders
    of artifacts that are not (or no longer) their content, and files that no artifact has.

    Raises:
        StorageError: something cannot be read at all.
    """
    with disk.storage_errors(store.root):
        problems: list[Problem] = []
        records: list[Record] = []
        for id in store.records.ids():
            try:
                record = store.records.read(id)
            except InvalidFile as error:
                problems.append(
                    Problem(path=error.subject, found=error.found, expected=error.expected)
                )
                continue
            if record is not None:
                records.append(record)
        users: dict[str, list[str]] = {}
        for record in records:
            for file in record.files:
                users.setdefault(file.sha256, []).append(record.id)
        problems += _verify_blobs(store, users, progress)
        for record in records:
            problems += _verify_folder(store, record)
        return problems


def _verify_blobs(
    store: Store, users: dict[str, list[str]], progress: Progress | None
) -> Iterator[Problem]:
    present = list(store.blobs.all())
    total = sum(_size(store.blobs.path(s)) for s in present)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("verify", done, total)

    for sha256 in sorted({*present, *users}):
        found = store.blobs.recheck(sha256, step)
        # A content that is being collected or replaced right now is nobody's trouble.
        if found is not None and (sha256 in users or store.blobs.path(sha256).exists()):
            yield Problem(
                path=str(store.blobs.path(sha256)),
                found=found,
                expected=f"sha256 {sha256}",
                artifacts=tuple(sorted(set(users.get(sha256, ())))),
            )


def _verify_folder(store: Store, record: Record) -> Iterator[Problem]:
    folder = store.artifact_folder(record.id)
    for file in record.files:
        path = folder / file.name
        try:
            found = path.stat()
            blob = store.blobs.path(file.sha256).stat()
        except FileNotFoundError:
            if path.exists():
                continue  # the blob is missing: told already
            found_text = "no file"
        else:
            # The blob's own bytes were read above; only a file that is not it must be read too.
            if os.path.samestat(found, blob):
                continue
            sha256 = disk.sha256_of(path)
            if sha256 == file.sha256:
                continue
            found_text = f"bytes with sha256 {sha256}"
        yield Problem(
            path=str(path),
            found=found_text,
            expected=f"sha256 {file.sha256}",
            artifacts=(record.id,),
        )
    if folder.is_dir():
        known = {file.name for file in record.files}
        for path in _files(folder):
            if path.relative_to(folder).as_posix() not in known:
                yield Problem(
                    path=str(path),
                    found="a file that is not part of the artifact",
                    expected="only what was verified",
                    artifacts=(record.id,),
                )


def gc(
    store: Store,
    *,
    dry_run: bool = False,
    in_use: Collection[str] = (),
    unfinished_after_s: float = 86_400.0,
) -> Freed:
    """Remove contents that no artifact names, and what dead commands left behind.

    Kept: contents that a running command has just brought in; downloads and conversions that
    somebody is at, or that were touched in the last ``unfinished_after_s`` seconds (so that an
    interrupted one can still be resumed); folders of the artifacts ``in_use`` although their
    record was removed, with their contents.

    Raises:
        InvalidFile: a record cannot be read, so what it needs is not known.
        StorageError: the disk refuses.
    """
    if not store.root.is_dir():
        return Freed(freed_bytes=0, files=0)
    with disk.storage_errors(store.root), store.lock():
        return _Collection(store, dry_run, set(in_use), unfinished_after_s).run()


class _Collection:
    def __init__(self, store: Store, dry_run: bool, in_use: set[str], age_s: float) -> None:
        self.store = store
        self.dry_run = dry_run
        self.in_use = in_use
        self.age_s = age_s
        self.doomed: dict[Path, os.stat_result] = {}
        self.folders: list[Path] = []

    def run(self) -> Freed:
        store = self.store
        needed = scratch.holds(store.root / "tmp")
        kept_inodes: set[Inode] = set()
        recorded = set(store.records.ids())
        for id in recorded:
            record = store.records.read(id)
            needed |= {f.sha256 for f in record.files} if record else set()
        for folder in _children(store.root / "artifacts"):
            if folder.name in self.in_use:
                kept_inodes |= {_inode(p.stat()) for p in _files(folder) if p.exists()}
            elif folder.name not in recorded:
                self._doom_tree(folder)
        blobs = []
        for sha256 in store.blobs.all():
            path = store.blobs.path(sha256)
            if sha256 not in needed and _inode(path.stat()) not in kept_inodes:
                self.doomed[path] = path.stat()
                blobs.append(sha256)
        self._doom_stray(needed | set(store.blobs.all()))
        self._doom_unfinished()
        released = self._doom_scratch()
        freed = self._sum()
        if not self.dry_run:
            for sha256 in blobs:
                store.blobs.delete(sha256)
            for path in self.doomed:
                _unlink(path)
            for folder in self.folders:
                shutil.rmtree(folder, ignore_errors=True)
        for lock in released:
            lock.release(delete=not self.dry_run)
        return freed

    def _doom_tree(self, folder: Path) -> None:
        self.folders.append(folder)
        for path in _files(folder):
            if path.parent.name != scratch.HOLDS:  # marks, not files of the user's
                self.doomed[path] = path.lstat()

    def _doom_stray(self, blobs: set[str]) -> None:
        """Temporary names in folders whose writers hold the lock that we hold now; old stamps."""
        store = self.store
        for folder in (store.records.folder, store.blobs.stamps, *_children(store.root / "pins")):
            for path in _children(folder):
                stamp = path.stem.removeprefix("sha256-")
                orphan = folder == store.blobs.stamps and stamp not in blobs
                if path.suffix == ".tmp" or orphan:
                    self.doomed[path] = path.lstat()

    def _doom_unfinished(self) -> None:
        now = time.time()
        for name in UNFINISHED:
            for path in _children(self.store.root / name):
                if path.suffix == ".lock":
                    continue
                lock = path.with_name(path.name.split(".")[0] + ".lock")
                young = now - path.lstat().st_mtime < self.age_s
                if young or locks.is_held(lock):
                    continue
                if path.is_dir() and not path.is_symlink():
                    self._doom_tree(path)
                else:
                    self.doomed[path] = path.lstat()

    def _doom_scratch(self) -> list[locks.FileLock]:
        taken = []
        for folder, lock in scratch.abandoned(self.store.root / "tmp"):
            taken.append(lock)
            if folder.is_dir():
                self._doom_tree(folder)
        return taken

    def _sum(self) -> Freed:
        """Bytes come back only where the last name of a file goes."""
        going = Counter(_inode(s) for s in self.doomed.values())
        seen: set[Inode] = set()
        freed = 0
        for found in self.doomed.values():
            inode = _inode(found)
            if inode in seen or not stat.S_ISREG(found.st_mode):
                continue
            seen.add(inode)
            if found.st_nlink <= going[inode]:
                freed += found.st_size
        return Freed(freed_bytes=freed, files=len(self.doomed))


def usage(store: Store) -> Usage:
    """Count what lies in ``store``."""
    with disk.storage_errors(store.root):
        blobs = list(store.blobs.all())
        records = list(store.records.readable())
        names = Counter(f.sha256 for r in records for f in r.files)
        size = shared = 0
        for sha256 in blobs:
            found = store.blobs.path(sha256).stat()
            size += found.st_size
            if found.st_nlink > 1 + names[sha256]:
                shared += found.st_size
        return Usage(
            artifacts=len(records),
            blobs=len(blobs),
            blob_bytes=size,
            shared_bytes=shared,
            unfinished_bytes=sum(
                p.lstat().st_size
                for name in (*UNFINISHED, "tmp")
                for p in _files(store.root / name)
            ),
        )


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            yield Path(base, name)


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unlink(path: Path) -> None:
    if os.name == "nt" and path.exists():  # pragma: no cover
        path.chmod(0o644)
    path.unlink(missing_ok=True)


__all__ = ["gc", "usage", "verify"]
