"""Put weights into another program's store: shared where possible, written down, taken back.

Nothing that stands there and is not ours is ever replaced or removed; every file appears whole or
not at all; and what was placed is recorded (:mod:`qwharf.artifacts.uses`), so that exactly that
can be taken back, whatever has happened since.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qwharf.artifacts import disk
from qwharf.artifacts.store import Store
from qwharf.artifacts.uses import Placed, PlacedFile, Records
from qwharf.errors import Conflict, CopyNeeded, StorageError
from qwharf.types import DeploymentSpec

UNKNOWN = "…"
"""Stands for a hash that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of an artifact."""

    name: str
    path: Path
    sha256: str
    """:data:`UNKNOWN` where the file would have to be read, or is not there yet."""
    size_bytes: int


def sources(store: Store, spec: DeploymentSpec) -> tuple[Source, ...]:
    """The files of ``spec``'s artifact, as the store has them; nothing is read but its record.

    Raises:
        InvalidFile: the record is damaged.
    """
    record = None
    if spec.artifact_path.is_relative_to(store.root) and len(spec.artifact_id) == 64:
        record = store.records.read(spec.artifact_id)
    if record is not None:
        return tuple(
            Source(
                name=f.name,
                path=store.blobs.path(f.sha256),
                sha256=f.sha256,
                size_bytes=f.size_bytes,
            )
            for f in record.files
        )
    root = spec.artifact_path
    paths = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
    return tuple(
        Source(
            name=p.relative_to(root).as_posix() if root.is_dir() else p.name,
            path=p.resolve(),
            sha256=UNKNOWN,
            size_bytes=p.stat().st_size if p.exists() else 0,
        )
        for p in paths
    )


def hashed(store: Store, spec: DeploymentSpec, tell: Callable[[str], None]) -> tuple[Source, ...]:
    """The same, looked over, and with every hash known.

    Raises:
        ChecksumMismatch: a file was changed since it came into the store.
        InvalidFile, StorageError: one is missing or cannot be read.
    """
    found = sources(store, spec)
    if all(s.sha256 != UNKNOWN for s in found):
        store.check(spec.artifact_id)
        return found
    for source in found:
        disk.require_file(source.path)
    tell("reading the weights once, for their sha256")
    with disk.storage_errors(spec.artifact_path):
        return tuple(replace(s, sha256=disk.sha256_of(s.path)) for s in found)


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def may_write(folder: Path) -> bool:
    """Whether this user may make files in ``folder``, which exists."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def share_or_copy(source: Path, target: Path) -> str:
    """How ``source``'s bytes would come there: ``link`` on one file system, else ``copy``."""
    return "link" if existing(source).stat().st_dev == existing(target).stat().st_dev else "copy"


class Placement:
    """The files that one deployment has in the store of one other program.

    The caller holds a lock: nobody else of ours places or takes back there meanwhile.

    Args:
        records: of our store.
        placed: what is known beforehand: platform, deployment, artifact, name.
        owner: the program, as people call it.
        may_copy: whether bytes may be copied where they cannot be shared.
    """

    def __init__(self, records: Records, placed: Placed, *, owner: str, may_copy: bool) -> None:
        self.records = records
        self.owner = owner
        self.may_copy = may_copy
        self.before = records.read(placed.platform, placed.deployment)
        self.placed = replace(placed, files=())
        self._old = {f.path: f for f in self.before.files} if self.before else {}

    # ---------------------------------------------------------------------------------- placing

    def share(self, source: Path, target: Path, sha256: str, *, by_content: bool = False) -> str:
        """Make ``target`` hold ``source``'s bytes: hard link, else reflink, else a copy if allowed.

        Args:
            source: a file of our store.
            target: where.
            sha256: of the bytes.
            by_content: whether ``target`` is named by its content, so that a file which is there
                already will do, whoever put it there.

        Returns:
            How; ``already there`` if it was not ours to place.

        Raises:
            CopyNeeded: it cannot be shared, and copying was not allowed.
            Conflict: something else has that name.
            StorageError: the disk refuses.
        """
        with self._storage_errors(target):
            if self._stands(target):
                if not target.is_symlink() and target.samefile(source):
                    return self._note(target, "hard link", sha256)
                old = self._old.get(target)
                if old is not None and old.is_still_there():
                    if old.sha256 == sha256:
                        return self._note(target, old.how, sha256)
                    target.unlink()
                elif by_content and target.is_file():
                    return self._found(source, target)
                else:
                    raise self._taken(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not may_write(target.parent):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target.parent))
            how = self._bring(source, target)
            disk.fsync_folder(target.parent)
            return self._note(target, how, sha256)

    def _found(self, source: Path, target: Path) -> str:
        found, wanted = target.stat().st_size, source.stat().st_size
        if found != wanted:
            raise StorageError(
                str(target),
                found=f"{found:,} bytes",
                expected=f"{wanted:,}, by its name",
                hint=f"{self.owner} has a damaged file there: remove it, then try again",
            )
        return "already there"

    def _bring(self, source: Path, target: Path) -> str:
        if disk.hard_link(source, target):
            return "hard link"
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            how = "reflink"
            if not disk.reflink(source, temporary):
                how = "copy"
                self._allow_copy(source, target)
                disk.copy(source, temporary)
            temporary.chmod(0o444)
            _publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return how

    def _allow_copy(self, source: Path, target: Path) -> None:
        size = source.stat().st_size
        if not self.may_copy:
            raise CopyNeeded(
                str(source),
                found=f"{target.parent} cannot share files with it: another file system, or one "
                "without links",
                expected=f"leave to copy {_gb(size)}",
                hint=f"allow the copy with `--copy`, or let {self.owner}'s models and QWHARF_HOME "
                "lie on one file system",
                copy_bytes=size,
                target=str(target),
            )
        free = disk.free_bytes(target.parent)
        if free < size:
            raise StorageError(
                str(target),
                found=f"{_gb(free)} free",
                expected=_gb(size),
                hint=f"free some space where {self.owner} keeps its models",
            )

    def write(self, target: Path, data: bytes, sha256: str) -> None:
        """Make ``target`` hold ``data``.

        Raises:
            Conflict: something else has that name.
            StorageError: the disk refuses.
        """
        with self._storage_errors(target):
            if self._stands(target) and not _holds(target, data):
                old = self._old.get(target)
                if old is None or not old.is_still_there():
                    raise self._taken(target)
                disk.write_atomically(target, data)
            elif not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
                try:
                    with temporary.open("xb") as file:
                        file.write(data)
                        disk.flush(file)
                    temporary.chmod(0o644)  # the program may run as another user
                    _publish(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
                disk.fsync_folder(target.parent)
            self._note(target, "written", sha256)

    def _stands(self, target: Path) -> bool:
        return target.exists() or target.is_symlink()

    def _note(self, target: Path, how: str, sha256: str) -> str:
        file = PlacedFile.of(target, how, sha256)
        files = (*(f for f in self.placed.files if f.path != target), file)
        self.placed = replace(self.placed, files=files)
        # What an earlier deployment placed stays written down until it is taken back.
        rest = tuple(f for path, f in self._old.items() if path not in {x.path for x in files})
        self.records.write(replace(self.placed, files=(*rest, *files)))
        return how

    def _taken(self, target: Path) -> Conflict:
        return Conflict(
            str(target),
            found="something that qwharf did not put there, or that was changed since",
            expected=f"no file, or ours, for `{self.placed.deployment}`",
            hint=f"deploy under another name (`--name`), or remove `{self.placed.model}` in "
            f"{self.owner} if you do not need it",
        )

    # -------------------------------------------------------------------------------- taking back

    def settle(self, is_needed: Callable[[Path], bool], tidy: Iterable[Path]) -> None:
        """Take back what an earlier deployment of this name placed and this one did not.

        Raises:
            StorageError: the disk refuses.
        """
        kept = {f.path for f in self.placed.files}
        stale = [f for path, f in self._old.items() if path not in kept]
        with self._storage_errors(self.records.folder):
            self._remove(stale, is_needed, tidy)
            self.records.write(self.placed)

    def take_back(self, is_needed: Callable[[Path], bool], tidy: Iterable[Path]) -> None:
        """Remove every file that this deployment placed, and the record of them.

        Args:
            is_needed: whether a file must stay, because the program uses it otherwise.
            tidy: folders below which folders that became empty go too.

        Raises:
            StorageError: the disk refuses; the record stays.
        """
        new = {f.path for f in self.placed.files}
        files = [*(f for f in self._old.values() if f.path not in new), *self.placed.files]
        with self._storage_errors(self.records.folder):
            self._remove(reversed(files), is_needed, tidy)  # what names others, first
            self.records.forget(self.placed)

    def _remove(
        self,
        files: Iterable[PlacedFile],
        is_needed: Callable[[Path], bool],
        tidy: Iterable[Path],
    ) -> None:
        for file in files:
            if not file.is_still_there() or is_needed(file.path):
                continue
            with self._storage_errors(file.path):
                file.path.unlink(missing_ok=True)
                _tidy(file.path.parent, tidy)

    @contextlib.contextmanager
    def _storage_errors(self, subject: Path) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StorageError(
                str(e.filename2 or e.filename or subject),
                found=_reason(e, subject),
                expected=f"to place files where {self.owner} keeps its models",
                hint=_hint(e, self.owner),
                errno=e.errno,
            ) from e


def _publish(temporary: Path, target: Path) -> None:
    """Give ``temporary`` its final name, unless somebody else took it meanwhile.

    Raises:
        OSError: the name is taken, or the disk refuses.
    """
    if not disk.hard_link(temporary, target):  # a file system without links: FAT
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        temporary.rename(target)


def _holds(target: Path, data: bytes) -> bool:
    return target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data


def _tidy(folder: Path, below: Iterable[Path]) -> None:
    roots = tuple(below)
    while any(folder != root and folder.is_relative_to(root) for root in roots):
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone
            return
        folder = folder.parent


def _reason(error: OSError, subject: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno in disk.NOT_OURS:
        owner = _owner(subject)
        if owner is not None:
            return f"{reason}: it belongs to the user {owner}"
    return reason


def _owner(path: Path) -> str | None:
    """Whose the nearest existing folder is, if it is not ours."""
    for place in (path, *path.parents):
        try:
            found = place.stat()
        except OSError:
            continue
        if os.name == "nt" or found.st_uid == os.geteuid():
            return None
        try:
            return place.owner()
        except KeyError:
            return str(found.st_uid)
    return None


def _hint(error: OSError, owner: str) -> str:
    if error.errno in disk.NO_SPACE:
        return f"free some space where {owner} keeps its models, then try again"
    if error.errno in disk.NOT_OURS:
        return f"run qwharf as the user who runs {owner}, or give yourself write access there"
    return "look at that folder; then try again"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 10**7 else f"{size_bytes / 1e6:.2f} MB"
