"""The store: one verified copy of every weight file, and folders of links for engines.

::

    store/
      blobs/sha256-<hex>        contents
      stamps/sha256-<hex>.json  size and time of each blob when it was last known to be right
      records/<id>.json         artifacts: names -> contents, format, provenance
      artifacts/<id>/…          the same as real folders, made of hard links
      pins/<hub>/<repo>.json    revision and hashes of every repository pulled from
      downloads/, work/         unfinished downloads and conversions, to be resumed
      tmp/<id>/, locks/         scratch folders of running commands; locks

A record is written last and removed first, so an artifact that can be found is whole. Anything
else that a crash may leave is found by :meth:`Store.gc`.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts import disk, locks, view
from qwharf.artifacts.blobs import BlobRef, Blobs, PutMode
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.records import ORIGIN, Label, Record, Records, artifact_id, check_name
from qwharf.artifacts.scratch import Scratch
from qwharf.errors import ChecksumMismatch, InvalidFile, StorageError, UsageError
from qwharf.types import Artifact, Format, StoredFile

__all__ = ["BlobRef", "Freed", "Problem", "Store", "Usage"]

_PREFIX = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in the store."""

    path: str
    found: str
    expected: str
    artifacts: tuple[str, ...] = ()
    """Ids of the artifacts that suffer."""

    def __str__(self) -> str:
        whose = ", ".join(a[:12] for a in self.artifacts)
        suffix = (
            f" (artifact {whose}: `qwharf store rm {whose[:12]}`, get it again)" if whose else ""
        )
        return f"{self.path}: found {self.found}, expected {self.expected}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What a collection removed, or would remove."""

    freed_bytes: int
    """Bytes that the disk gets back: a file that also lives elsewhere frees nothing."""
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What lies in the store."""

    artifacts: int
    blobs: int
    blob_bytes: int
    shared_bytes: int
    """Part of ``blob_bytes`` that came in by hard link and also lives elsewhere."""
    unfinished_bytes: int
    """Downloads and conversions that were interrupted, and scratch files."""


class Store:
    """The front door. Creating one touches nothing; folders appear with the first file.

    Safe to use from several processes and threads at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.blobs = Blobs(self.root, self.lock, lambda: self.scratch)
        self.records = Records(self.root)
        self._scratch: Scratch | None = None
        self._opening = threading.Lock()

    # ------------------------------------------------------------------------ house-keeping

    @property
    def scratch(self) -> Scratch:
        """The scratch folder of this process; made when first needed, removed when it ends."""
        with self._opening:
            if self._scratch is None or self._scratch.pid != os.getpid():
                self._scratch = Scratch(self.root / "tmp")
            return self._scratch

    def close(self) -> None:
        """Remove the scratch folder and let go of contents that no artifact took."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock_path(self, name: str) -> Path:
        """The file of the lock ``name``; its folder is made."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """The store's own lock: for renames and records, never while bytes are moved."""
        with locks.locked(self.lock_path("store")):
            yield

    @contextlib.contextmanager
    def working_on(self, what: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Do ``what`` (a file name) alone; a second caller waits until the first has done it."""
        with contextlib.ExitStack() as stack:
            with disk.storage_errors(self.root):
                stack.enter_context(locks.locked(self.lock_path(what), on_wait))
            yield

    def folder(self, name: str) -> Path:
        """A folder of the store for unfinished work (``downloads``, ``work``); made if need be."""
        path = self.root / name
        with disk.storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    # -------------------------------------------------------------------------------- in

    def put_file(
        self,
        path: Path,
        mode: PutMode = "link",
        *,
        expected_sha256: str | None = None,
        known_sha256: str | None = None,
        step: Callable[[int], None] | None = None,
    ) -> BlobRef:
        """Take a file's content in; see :meth:`Blobs.put` for the arguments.

        The content is kept until this store is closed or an artifact names it.

        Raises:
            InvalidFile, ChecksumMismatch, StorageError: nothing is stored.
        """
        with disk.storage_errors(path):
            return self.blobs.put(
                path,
                mode,
                expected_sha256=expected_sha256,
                known_sha256=known_sha256,
                step=step,
            )

    def take(self, sha256: str) -> BlobRef | None:
        """The content ``sha256`` if it is here and looks untouched; then kept as by `put_file`."""
        if not self.blobs.path(sha256).exists():
            return None
        with disk.storage_errors(self.root), self.lock():
            if not self.blobs.untouched(sha256):
                return None
            self.scratch.hold(sha256)
            size = self.blobs.path(sha256).stat().st_size
        return BlobRef(sha256=sha256, size_bytes=size, how="already there")

    def add(
        self,
        model_name: str,
        format: Format,
        files: Mapping[str, BlobRef],
        provenance: Mapping[str, str],
        entry: str | None,
    ) -> Artifact:
        """Make an artifact of contents that :meth:`put_file` took in.

        Args:
            model_name: the model it is, as the catalogue (or the user) calls it.
            format: of the weights.
            files: name in the artifact's folder (``/`` separated) -> content.
            provenance: where it came from.
            entry: the file to hand to an engine (a ``.gguf``); ``None``: the folder.

        Raises:
            InvalidFile: a name is not a plain relative path, or two differ in case only.
            StorageError: a content is gone, or the disk refuses.
        """
        subject = f"{model_name} {format}"
        stored = tuple(
            StoredFile(
                name=check_name(n, subject=subject), size_bytes=b.size_bytes, sha256=b.sha256
            )
            for n, b in sorted(files.items())
        )
        _check_together([f.name for f in stored], subject)
        if not stored or (entry is not None and entry not in files):
            raise InvalidFile(subject, found=f"no file {entry!r}", expected="one of the files")
        id = artifact_id(stored)
        label = Label(model=model_name, added_at=time.time(), provenance=dict(provenance))
        with disk.storage_errors(self.root), self.lock():
            for file in stored:
                if not self.blobs.path(file.sha256).exists():
                    raise StorageError(
                        str(self.blobs.path(file.sha256)),
                        found="no file",
                        expected=f"the content of {file.name}",
                        hint="run the same command again",
                    )
            old = _readable(self.records, id)
            kept = tuple(x for x in old.labels if not x.same_as(label)) if old else ()
            record = Record(id=id, format=format, entry=entry, files=stored, labels=(label, *kept))
            view.build(record, self.artifact_folder(id), self.blobs, self.scratch)
            self.records.write(record)
            for file in stored:
                self.scratch.release(file.sha256)
        return record.artifact(label, self.artifact_folder(id))

    # ------------------------------------------------------------------------------- look

    def artifact_folder(self, id: str) -> Path:
        """Where the artifact is materialised."""
        return self.root / "artifacts" / id

    def artifacts(self) -> tuple[Artifact, ...]:
        """All artifacts, newest first; one per model name where several share their files."""
        return tuple(
            record.artifact(label, self.artifact_folder(record.id))
            for record in self.records.readable()
            for label in record.labels
        )

    def get(self, id_or_prefix: str) -> Artifact | None:
        """The artifact of that id; looks nothing over (see :meth:`check`).

        Raises:
            UsageError: the prefix fits several.
            InvalidFile: its record is damaged.
        """
        prefix = id_or_prefix.lower().removeprefix("sha256:")
        if not _PREFIX.fullmatch(prefix):
            return None
        found = [i for i in self.records.ids() if i.startswith(prefix)]
        if len(found) > 1:
            raise UsageError(
                id_or_prefix,
                found=f"{len(found)} artifacts: " + ", ".join(i[:16] for i in found[:5]),
                expected="the beginning of one id",
                hint="give more of it; see `qwharf store ls`",
            )
        record = self.records.read(found[0]) if found else None
        return (
            record.artifact(record.labels[0], self.artifact_folder(record.id)) if record else None
        )

    def find(
        self, model_name: str, format: Format, *, origin: Mapping[str, str] | None = None
    ) -> Artifact | None:
        """A sound artifact of that model and format; original files before converted ones.

        Every file is looked over as in :meth:`check`; a damaged artifact is passed over, so that
        getting it again repairs it.

        Args:
            model_name: as it was added.
            format: of the weights.
            origin: only those whose provenance says the same of :data:`records.ORIGIN`; ``None``:
                any.
        """
        candidates = [
            (record, label)
            for record in self.records.readable()
            if record.format == format
            for label in record.labels
            if label.model == model_name
            and (
                origin is None
                or all(label.provenance.get(key) == origin.get(key) for key in ORIGIN)
            )
        ]
        candidates.sort(key=lambda c: ("converted_from" in c[1].provenance, -c[1].added_at))
        for record, label in candidates:
            try:
                self._look_over(record)
            except (ChecksumMismatch, StorageError):
                continue
            return record.artifact(label, self.artifact_folder(record.id))
        return None

    def check(self, artifact: Artifact | str) -> None:
        """Look an artifact over at no cost: size and time of modification of every file.

        A file that looks different is read: if its bytes are right after all, that is noted; its
        links are mended where they are missing.

        Raises:
            ChecksumMismatch: a file was changed or lost.
            StorageError: there is no such artifact, or it cannot be read.
        """
        id = artifact if isinstance(artifact, str) else artifact.id
        record = self.records.read(id)
        if record is None:
            raise StorageError(id, found="no such artifact", hint="see `qwharf store ls`")
        self._look_over(record)

    def _look_over(self, record: Record) -> None:
        with disk.storage_errors(self.root):
            for file in record.files:
                if self.blobs.untouched(file.sha256):
                    continue
                found = self.blobs.recheck(file.sha256)
                if found is not None:
                    raise ChecksumMismatch(
                        f"{record.labels[0].model}: {file.name}",
                        found=found,
                        expected=f"sha256 {file.sha256}",
                        hint="it was changed after it came in (an import by hard link shares the "
                        f"file): `qwharf store rm {record.id[:12]}`, then get it again",
                    )
            folder = self.artifact_folder(record.id)
            if not view.is_whole(record, folder, self.blobs):
                with self.lock():
                    view.build(record, folder, self.blobs, self.scratch)

    # -------------------------------------------------------------------------------- out

    def remove(self, id: str) -> None:
        """Forget an artifact (all its names) and remove its folder; contents stay until `gc`."""
        with disk.storage_errors(self.root), self.lock():
            self.records.delete(id)
            folder = self.artifact_folder(id)
            if folder.is_dir():
                grave = self.scratch.new_path()
                folder.rename(grave)
                collect_tree(grave)

    def verify(self, progress: Progress | None = None) -> list[Problem]:
        """Read every byte of the store again and compare; see :mod:`qwharf.artifacts.upkeep`."""
        from qwharf.artifacts.upkeep import verify

        return verify(self, progress)

    def gc(
        self,
        *,
        dry_run: bool = False,
        in_use: Collection[str] = (),
        unfinished_after_s: float = 86_400.0,
    ) -> Freed:
        """Remove what nothing needs; see :mod:`qwharf.artifacts.upkeep`."""
        from qwharf.artifacts.upkeep import gc

        return gc(self, dry_run=dry_run, in_use=in_use, unfinished_after_s=unfinished_after_s)

    def disk_usage(self) -> Usage:
        """Count what lies in the store."""
        from qwharf.artifacts.upkeep import usage

        return usage(self)


def collect_tree(folder: Path) -> None:
    """Remove a folder of ours, read-only files and all; what it links to stays."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _readable(records: Records, id: str) -> Record | None:
    try:
        return records.read(id)
    except InvalidFile:  # damaged: it is about to be replaced
        return None


def _check_together(names: list[str], subject: str) -> None:
    """Names must stay apart on file systems that ignore case; no name may be another's folder."""
    folded = [n.casefold() for n in names]
    taken = set(folded)
    parents = {n.rsplit("/", i)[0] for n in folded for i in range(1, n.count("/") + 1)}
    if len(taken) < len(names) or taken & parents:
        raise InvalidFile(
            subject,
            found="two files whose names collide",
            expected="names that differ in more than case",
        )
