"""Files that appear whole or not at all, and the cheapest way to have the same bytes twice.

Order everywhere: write under a temporary name in the same file system, flush the file to the disk,
rename it, flush the folder. What a crash leaves behind then has a temporary name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

from qwharf.errors import InvalidFile, StorageError

Progress = Callable[[str, int, int | None], None]
"""``(label, done_bytes, total_bytes or None)``."""

How = Literal["hard link", "reflink", "copy", "symbolic link", "move", "already there"]

CHUNK_BYTES = 1 << 20
FICLONE = 0x40049409
"""``_IOW(0x94, 9, int)`` of ``linux/fs.h``: share all extents of another file."""

NO_HARD_LINK = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
)
"""Another file system, a policy (``protected_hardlinks``), too many links, no support."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NOT_OURS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def storage_errors(subject: Path | str) -> Iterator[None]:
    """Turn what the operating system says about the disk into :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            hint = (
                "free some space (`qwharf store gc` removes what nothing uses), then run the same "
                "command again: it goes on where it stopped"
            )
        elif error.errno in NOT_OURS:
            hint = "set QWHARF_HOME to a folder that you may write to"
        elif isinstance(error, FileNotFoundError):
            hint = "see `qwharf store verify`"
        else:
            hint = "see `qwharf doctor`"
        raise StorageError(
            str(error.filename or subject),
            found=error.strerror or str(error),
            hint=hint,
            errno=error.errno,
        ) from error


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write below ``folder`` (which need not exist yet)."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def require_space(folder: Path, needed_bytes: int, *, subject: str) -> None:
    """Refuse early what cannot end well.

    Raises:
        StorageError: fewer than ``needed_bytes`` (and a margin for the system) are free.
    """
    margin = min(64 << 20, needed_bytes // 20 + (1 << 20)) if needed_bytes else 0
    free = free_bytes(folder)
    if free < needed_bytes + margin:
        raise StorageError(
            subject,
            found=f"{_amount(free)} free in {folder}",
            expected=_amount(needed_bytes + margin),
            hint="free some space (`qwharf store gc` removes what nothing uses), or set "
            "QWHARF_HOME to a folder on a larger disk",
            free_bytes=free,
            needed_bytes=needed_bytes + margin,
        )


def _amount(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 10**8 else f"{size_bytes / 1e6:.2f} MB"


def fsync_folder(folder: Path) -> None:
    """Make renames and links in ``folder`` survive a power cut (no such thing on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file that holds ``data``."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as JSON, sorted and indented so that people can read it."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8") + b"\n")


def require_file(path: Path) -> os.stat_result:
    """Facts about ``path``, which must be a regular file (a symbolic link is followed).

    Raises:
        InvalidFile: missing, a folder, a device, a pipe.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidFile(
            str(path), found=error.strerror or str(error), expected="a readable file"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "something that is not a plain file"
        raise InvalidFile(str(path), found=kind, expected="a file")
    return found


def sha256_of(path: Path, step: Callable[[int], None] | None = None) -> str:
    """The sha256 of a file in hex; ``step`` is told the bytes of each piece read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        for piece in _pieces(file):
            digest.update(piece)
            if step is not None:
                step(len(piece))
    return digest.hexdigest()


def _pieces(file: Any) -> Iterator[memoryview]:
    buffer = bytearray(CHUNK_BYTES)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        yield view[:count]


def reflink(source: Path, target: Path) -> bool:
    """Make ``target`` (new) share ``source``'s extents, copy on write; false where impossible.

    Linux only, on file systems that can (btrfs, XFS, bcachefs, OCFS2).
    """
    if sys.platform != "linux":
        return False
    import fcntl

    with source.open("rb") as original, target.open("xb") as clone:
        try:
            fcntl.ioctl(clone.fileno(), FICLONE, original.fileno())
        except OSError:
            done = False
        else:
            os.fsync(clone.fileno())
            done = True
    if not done:
        target.unlink()
    return done


def copy(source: Path, target: Path, step: Callable[[int], None] | None = None) -> str:
    """Copy ``source`` to ``target`` (new), flushed to the disk; the sha256 of what was copied."""
    digest = hashlib.sha256()
    with source.open("rb", buffering=0) as file, target.open("xb") as out:
        for piece in _pieces(file):
            digest.update(piece)
            out.write(piece)
            if step is not None:
                step(len(piece))
        flush(out)
    return digest.hexdigest()


def flush(file: BinaryIO) -> None:
    """Bring all that was written to ``file`` onto the disk."""
    file.flush()
    os.fsync(file.fileno())


def hard_link(source: Path, target: Path) -> bool:
    """Make ``target`` (new) a second name of ``source``; false where the system forbids it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except NotImplementedError:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in NO_HARD_LINK:
                return False
            raise
    except OSError as error:
        if error.errno in NO_HARD_LINK:
            return False
        raise
    return True


def same_bytes(source: Path, target: Path, *, allow_hard_link: bool = True) -> How:
    """Make ``target`` (new) hold ``source``'s bytes: hard link, else reflink, else copy."""
    if allow_hard_link and hard_link(source, target):
        return "hard link"
    if reflink(source, target):
        return "reflink"
    copy(source, target)
    return "copy"
