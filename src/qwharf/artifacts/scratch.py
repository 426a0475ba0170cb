"""Scratch folders with an owner: what a dead owner left behind may be thrown away."""

from __future__ import annotations

import os
import shutil
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from qwharf.artifacts.locks import FileLock

HOLDS = "holds"


class Scratch:
    """One process's folder for unfinished files, in the store's own file system.

    ``<root>/<id>/`` exists while ``<root>/<id>.lock`` is locked; the system drops the lock when
    the process ends, however it ends. ``holds/<sha256>`` in it keeps a blob from being collected
    between its arrival and the artifact that will name it.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            self.folder = root / uuid.uuid4().hex
            lock = FileLock(self.folder.with_suffix(".lock"))
            if lock.try_acquire():  # false only if a collector looked at it in this very moment
                break
        (self.folder / HOLDS).mkdir(parents=True)
        self.pid = os.getpid()
        self._close = weakref.finalize(self, _discard, self.folder, lock, self.pid)

    def new_path(self, suffix: str = "") -> Path:
        """A name that nothing has yet."""
        return self.folder / f"{uuid.uuid4().hex}{suffix}"

    def hold(self, sha256: str) -> None:
        """Keep the blob ``sha256`` until :meth:`release` or the end of this process."""
        (self.folder / HOLDS / sha256).touch()

    def release(self, sha256: str) -> None:
        """An artifact names the blob now."""
        (self.folder / HOLDS / sha256).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._close()


def _discard(folder: Path, lock: FileLock, pid: int) -> None:
    if os.getpid() != pid:  # a forked child must not clean up after its parent
        return
    shutil.rmtree(folder, ignore_errors=True)
    lock.release(delete=True)
    if os.name == "nt":  # pragma: no cover - an open file cannot be deleted there
        lock.path.unlink(missing_ok=True)


def holds(root: Path) -> set[str]:
    """The blobs that living owners of scratch folders below ``root`` still need."""
    kept: set[str] = set()
    for folder in _folders(root):
        lock = FileLock(folder.with_suffix(".lock"))
        if lock.try_acquire():
            lock.release()
        elif (folder / HOLDS).is_dir():
            kept |= {p.name for p in (folder / HOLDS).iterdir()}
    return kept


def abandoned(root: Path) -> Iterator[tuple[Path, FileLock]]:
    """Scratch folders of the dead, each with its lock taken; the caller releases it."""
    for folder in _folders(root):
        lock = FileLock(folder.with_suffix(".lock"))
        if lock.try_acquire():
            yield folder, lock


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted({p.with_suffix("") for p in root.iterdir()})
