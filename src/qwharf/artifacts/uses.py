"""Who else uses the files of the store: Ollama's and LM Studio's own folders of models.

Two ways to know. *By looking*: a file there that has our content's name (Ollama) or is the very
same file (device and inode). *By record*: what a deployment placed is written down, file by file,
under ``uses/<platform>/<deployment>.json``, so that it can be taken back exactly, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qwharf.artifacts import disk, lm_studio_models, ollama_models
from qwharf.artifacts.store import Store
from qwharf.artifacts.versioned import read_versioned
from qwharf.codec import encode
from qwharf.errors import InvalidFile

T = TypeVar("T")

VERSION = 1


# ------------------------------------------------------------------------------------- records


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFile:
    """A file in another program's folder, and how to know it again."""

    path: Path
    how: str
    """``hard link``, ``reflink``, ``copy``, ``written``."""
    sha256: str
    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, how: str, sha256: str) -> PlacedFile:
        """The file as it is now.

        Raises:
            OSError: it is not there.
        """
        found = path.stat()
        return cls(
            path=path,
            how=how,
            sha256=sha256,
            device=found.st_dev,
            inode=found.st_ino,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
        )

    def is_still_there(self) -> bool:
        """Whether the name still leads to the very file, unchanged."""
        try:
            return PlacedFile.of(self.path, self.how, self.sha256) == self
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What one deployment put into another program's store."""

    platform: str
    deployment: str
    artifact_id: str
    model: str
    """The name under which that program knows it."""
    root: Path | None = None
    """The folder of models that it was placed in."""
    url: str | None = None
    """Of the service, where it was handed over the network instead."""
    digest: str | None = None
    """What the service calls the model itself, to know it again."""
    asked: str | None = None
    """A hash of what it was made from there, so that it is made once."""
    files: tuple[PlacedFile, ...] = ()
    version: int = VERSION


class Records:
    """The records of what was placed; a store's ``uses/`` folder."""

    def __init__(self, store_dir: Path) -> None:
        self.folder = store_dir / "uses"

    def _path(self, platform: str, deployment: str) -> Path:
        return self.folder / platform / f"{deployment}.json"

    def read(self, platform: str, deployment: str) -> Placed | None:
        """The record; ``None`` if there is none.

        Raises:
            InvalidFile: it cannot be understood.
        """
        return self._read(self._path(platform, deployment))

    def read_or_drop(self, platform: str, deployment: str) -> Placed | None:
        """The record, to be taken back; one that cannot be understood is dropped, since what it
        told of can no longer be known for ours.
        """
        path = self._path(platform, deployment)
        try:
            return self._read(path)
        except InvalidFile:
            path.unlink(missing_ok=True)
            return None

    def _read(self, path: Path) -> Placed | None:
        return read_versioned(
            path,
            Placed,
            VERSION,
            what="a record of what was placed",
            hint="remove it; what it tells of then stays where it was placed",
        )

    def write(self, placed: Placed) -> None:
        """Keep ``placed``, in place of an older one.

        Raises:
            OSError: the disk refuses.
        """
        path = self._path(placed.platform, placed.deployment)
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_json(path, encode(placed))

    def forget(self, placed: Placed) -> None:
        """Remove the record."""
        self._path(placed.platform, placed.deployment).unlink(missing_ok=True)

    def all(self, platform: str | None = None) -> Iterator[Placed]:
        """Every record that can be read."""
        for path in sorted(self.folder.glob(f"{platform or '*'}/*.json")):
            try:
                placed = self._read(path)
            except InvalidFile:
                continue
            if placed is not None:
                yield placed


# ------------------------------------------------------------------------------------- looking


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One file of an artifact, as another program has it."""

    platform: str
    model: str
    """The name under which that program knows it."""
    path: Path
    shared: bool
    """Whether it is our very file, which costs no space; otherwise a copy of the same bytes."""
    deployment: str | None = None
    """Of ours, that placed it."""


def find(store: Store) -> Mapping[str, tuple[Use, ...]]:
    """Every use of every artifact of ``store``, by the artifact's id. Asks no program.

    Raises:
        StorageError: our own store cannot be read; what cannot be read of others' is passed over.
    """
    placed = {f.path: p for p in Records(store.root).all() for f in p.files}
    with disk.storage_errors(store.root):
        records = list(store.records.readable())
        inodes = {}
        for sha256 in {f.sha256 for r in records for f in r.files}:
            path = store.blobs.path(sha256)
            if path.exists():
                inodes[_inode(path.stat())] = sha256
    found: dict[str, list[Use]] = {}
    for sha256, use in (*_in_ollama(inodes, placed), *_in_lm_studio(inodes, placed)):
        found.setdefault(sha256, []).append(use)
    uses = {}
    for record in records:
        mine = [use for f in record.files for use in found.get(f.sha256, ())]
        if mine:
            uses[record.id] = tuple(dict.fromkeys(mine))
    return uses


Inode = tuple[int, int]


def _in_ollama(
    inodes: Mapping[Inode, str], placed: Mapping[Path, Placed]
) -> Iterator[tuple[str, Use]]:
    models = ollama_models.models_folder()
    ours = set(inodes.values())
    for name, manifest_path in _quietly(ollama_models.names(models)):
        try:
            manifest = ollama_models.read_manifest(models, name)
        except InvalidFile:
            continue
        layer = manifest.layer(ollama_models.MODEL_LAYER)
        if layer is None or layer.sha256 not in ours:
            continue
        path = layer.path(models)
        try:
            shared = inodes.get(_inode(path.stat())) == layer.sha256
        except OSError:
            continue
        record = placed.get(manifest_path)
        deployment = record.deployment if record else None
        yield (
            layer.sha256,
            Use(
                platform="ollama",
                model=str(name),
                path=path,
                shared=shared,
                deployment=deployment,
            ),
        )


def _in_lm_studio(
    inodes: Mapping[Inode, str], placed: Mapping[Path, Placed]
) -> Iterator[tuple[str, Use]]:
    models = lm_studio_models.models_folder()
    for path in _quietly(lm_studio_models.files(models)):
        record = placed.get(path)
        try:
            sha256 = inodes.get(_inode(path.stat()))
        except OSError:
            continue
        shared = sha256 is not None
        if sha256 is None and record is not None:
            sha256 = next(f.sha256 for f in record.files if f.path == path)
        if sha256 is None:
            continue
        publisher, repository, *_ = path.relative_to(models).parts
        yield (
            sha256,
            Use(
                platform="lmstudio",
                model=record.model if record else f"{publisher}/{repository}",
                path=path,
                shared=shared,
                deployment=record.deployment if record else None,
            ),
        )


def _quietly(items: Iterator[T]) -> Sequence[T]:
    """What can be had of another program's folder."""
    found: list[T] = []
    with contextlib.suppress(OSError):
        found.extend(items)
    return found


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino
