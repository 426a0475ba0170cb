"""File contents under the name of their sha256, each once."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwharf.artifacts import disk
from qwharf.artifacts.disk import How
from qwharf.artifacts.scratch import Scratch
from qwharf.errors import ChecksumMismatch, InvalidFile

PutMode = Literal["link", "copy", "move"]
Step = Callable[[int], None]

_NAME = re.compile(r"sha256-([0-9a-f]{64})")
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """A content in the store and how it got there."""

    sha256: str
    size_bytes: int
    how: How


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a blob's file looked like when its bytes were last known to be right.

    Hard-linked imports share their file with whoever made it, and nothing can stop that owner
    from writing into it. A changed size or time of modification gives it away at no cost.
    """

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """The stamp that ``path`` would get now."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns)


class Blobs:
    """``blobs/sha256-<hex>`` and, beside them, ``stamps/sha256-<hex>.json``.

    Args:
        root: the store's root.
        lock: gives the store's lock; held only for renames, never while bytes are read.
        scratch: gives this process's scratch folder.
    """

    def __init__(
        self,
        root: Path,
        lock: Callable[[], AbstractContextManager[None]],
        scratch: Callable[[], Scratch],
    ) -> None:
        self.folder = root / "blobs"
        self.stamps = root / "stamps"
        self._lock = lock
        self._scratch = scratch

    def path(self, sha256: str) -> Path:
        """Where the content ``sha256`` lies, or would lie."""
        if not _HEX.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a sha256 in lower-case hex")
        return self.folder / f"sha256-{sha256}"

    def all(self) -> Iterator[str]:
        """The sha256 of every blob."""
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if match := _NAME.fullmatch(path.name):
                    yield match[1]

    # ------------------------------------------------------------------------------ stamps

    def _stamp_path(self, sha256: str) -> Path:
        return self.stamps / f"sha256-{sha256}.json"

    def stamp(self, sha256: str) -> Stamp | None:
        """The recorded stamp; ``None`` if there is none or it cannot be read."""
        data = self._read_stamp(sha256)
        size, mtime = data.get("size_bytes"), data.get("mtime_ns")
        return Stamp(size, mtime) if isinstance(size, int) and isinstance(mtime, int) else None

    def how(self, sha256: str) -> str:
        """How the blob came in, for reports."""
        return str(self._read_stamp(sha256).get("how", "unknown"))

    def _read_stamp(self, sha256: str) -> dict[str, Any]:
        try:
            data = json.loads(self._stamp_path(sha256).read_bytes())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write_stamp(self, sha256: str, stamp: Stamp, how: str) -> None:
        disk.write_json(
            self._stamp_path(sha256),
            {
                "size_bytes": stamp.size_bytes,
                "mtime_ns": stamp.mtime_ns,
                "how": how,
                "checked_at": time.time(),
            },
        )

    def untouched(self, sha256: str) -> bool:
        """Whether the blob is there and looks as it did when its bytes were last checked."""
        stamp = self.stamp(sha256)
        try:
            return stamp is not None and Stamp.of(self.path(sha256)) == stamp
        except FileNotFoundError:
            return False

    def recheck(self, sha256: str, step: Step | None = None) -> str | None:
        """Read the blob again.

        Returns:
            ``None`` if its bytes are right (then it is stamped anew), else what was found.
        """
        path = self.path(sha256)
        try:
            before = Stamp.of(path)
            found = disk.sha256_of(path, step)
            if Stamp.of(path) != before:
                return "a file that is being changed"
        except FileNotFoundError:
            return "no file"
        if found != sha256:
            return f"bytes with sha256 {found}"
        if self.stamp(sha256) != before:
            with self._lock():
                self._write_stamp(sha256, before, self.how(sha256))
        return None

    # --------------------------------------------------------------------------------- put

    def put(
        self,
        source: Path,
        mode: PutMode,
        *,
        expected_sha256: str | None = None,
        known_sha256: str | None = None,
        step: Step | None = None,
    ) -> BlobRef:
        """Take a file's content in.

        Args:
            source: a regular file, or a symbolic link to one.
            mode: ``link`` shares the file if it can (hard link, else reflink, else copy);
                ``copy`` never shares the inode; ``move`` takes the file away.
            expected_sha256: what the content must be.
            known_sha256: what the caller has just computed from these bytes; saves reading them.
            step: told the bytes of each piece read.

        Raises:
            InvalidFile: not a regular file, or changed while it was read.
            ChecksumMismatch: the bytes are not the expected ones; nothing is stored.
            StorageError: through the store's front door.
        """
        source = source.resolve()
        disk.require_file(source)
        temporary = self._scratch().new_path()
        try:
            how, sha256 = self._take(source, temporary, mode, known_sha256, step)
            if expected_sha256 is not None and sha256 != expected_sha256:
                raise ChecksumMismatch(
                    str(source),
                    found=f"sha256 {sha256}",
                    expected=expected_sha256,
                    hint="the file is damaged or another one: fetch it again",
                )
            size = temporary.stat().st_size
            published = self._publish(temporary, sha256, how)
        finally:
            temporary.unlink(missing_ok=True)
        if mode == "move":
            source.unlink(missing_ok=True)
        return BlobRef(sha256=sha256, size_bytes=size, how=published)

    def _take(
        self, source: Path, temporary: Path, mode: PutMode, known: str | None, step: Step | None
    ) -> tuple[How, str]:
        # A move is a link first: dying before the blob is published must not lose the source.
        if mode != "copy" and disk.hard_link(source, temporary):
            _fsync(temporary)
            before = Stamp.of(temporary)
            sha256 = known or disk.sha256_of(temporary, step)
            if Stamp.of(temporary) != before:
                raise InvalidFile(
                    str(source),
                    found="a file that changes while it is read",
                    expected="a file that nobody writes to",
                    hint="wait until it is complete, then try again",
                )
            if mode == "move":
                temporary.chmod(0o444)
                return "move", sha256
            return "hard link", sha256  # its mode stays: it is still the owner's file
        if disk.reflink(source, temporary):
            sha256 = known or disk.sha256_of(temporary, step)
            temporary.chmod(0o444)
            return "reflink", sha256
        disk.require_space(self.folder, source.stat().st_size, subject=str(source))
        sha256 = disk.copy(source, temporary, step)
        temporary.chmod(0o444)
        return "copy", sha256

    def _publish(self, temporary: Path, sha256: str, how: How) -> How:
        final = self.path(sha256)
        with self._lock():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.stamps.mkdir(parents=True, exist_ok=True)
            self._scratch().hold(sha256)
            if self.untouched(sha256):
                return "already there"
            # The stamp first: should we die in between, it belongs to no file and is collected.
            # A blob that no longer looks like its stamp is replaced: here are the right bytes.
            self._write_stamp(sha256, Stamp.of(temporary), how)
            temporary.replace(final)
            disk.fsync_folder(self.folder)
        return how

    def delete(self, sha256: str) -> None:
        """Remove blob and stamp; the caller holds the store's lock and knows that none needs it."""
        path = self.path(sha256)
        if os.name == "nt":  # pragma: no cover - a read-only file cannot be deleted there
            path.chmod(0o644)
        path.unlink(missing_ok=True)
        self._stamp_path(sha256).unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    if os.name == "nt":  # pragma: no cover - needs a writable handle there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
