"""The folder that an engine sees: an artifact's files under their own names, linked to blobs."""

from __future__ import annotations

import os
from pathlib import Path

from qwharf.artifacts import disk
from qwharf.artifacts.blobs import Blobs, Stamp
from qwharf.artifacts.records import Record
from qwharf.artifacts.scratch import Scratch


def is_whole(record: Record, folder: Path, blobs: Blobs) -> bool:
    """Whether every file is there and looks like its blob (size and time, no reading)."""
    try:
        return all(
            Stamp.of(folder / f.name) == Stamp.of(blobs.path(f.sha256)) for f in record.files
        )
    except OSError:
        return False


def build(record: Record, folder: Path, blobs: Blobs, scratch: Scratch) -> None:
    """Make ``folder``, or repair it file by file; whoever reads it meanwhile sees whole files.

    The caller holds the store's lock.
    """
    if not folder.exists():
        made = scratch.new_path()
        for file in record.files:
            _place(blobs.path(file.sha256), made / file.name, folder / file.name)
        for inner in {(made / f.name).parent for f in record.files}:
            disk.fsync_folder(inner)
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.rename(folder)
        disk.fsync_folder(folder.parent)
        return
    for file in record.files:
        blob, final = blobs.path(file.sha256), folder / file.name
        try:
            if Stamp.of(final) == Stamp.of(blob):
                continue
        except OSError:
            pass
        temporary = scratch.new_path()
        _place(blob, temporary, final)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(final)
        temporary.unlink(missing_ok=True)  # renaming onto another name of itself does nothing
        disk.fsync_folder(final.parent)


def _place(blob: Path, target: Path, final: Path) -> None:
    """Give ``blob`` the name ``target``, which will be renamed to ``final``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if disk.hard_link(blob, target):
        return
    if not disk.reflink(blob, target):
        try:
            target.symlink_to(os.path.relpath(blob, final.parent))
        except (OSError, NotImplementedError):
            disk.copy(blob, target)
        else:
            return
    stamp = Stamp.of(blob)
    os.utime(target, ns=(stamp.mtime_ns, stamp.mtime_ns))
    target.chmod(0o444)
