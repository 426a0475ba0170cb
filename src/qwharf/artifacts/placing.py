"""Put an artifact where the user wants it, beside the store."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from qwharf.artifacts import disk
from qwharf.errors import Conflict, InvalidFile
from qwharf.types import Artifact


def place(artifact: Artifact, output: Path) -> str:
    """Make ``output`` hold the artifact: hard link, else reflink, else copy.

    Args:
        artifact: one of the store, looked over.
        output: the file to make (a ``.gguf`` of one part) or the folder to make (everything
            else). An existing folder gets the ``.gguf`` under its own name.

    Returns:
        How, for a person: ``hard link``, ``reflink`` or ``copy``.

    Raises:
        Conflict: something of that name exists.
        StorageError: the disk refuses; nothing is left under the final name.
    """
    output = Path(output).expanduser()
    single = len([f for f in artifact.files if f.name.endswith(".gguf")]) == 1
    as_file = artifact.format.container == "gguf" and single
    if as_file and output.is_dir():
        output = output / artifact.path.name
    if output.exists() or output.is_symlink():
        raise Conflict(
            str(output), found="something of that name", hint="remove it, or choose another name"
        )
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}.tmp")
    root = artifact.path if artifact.path.is_dir() else _folder(artifact)
    with disk.storage_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            if as_file:
                how = _same(artifact.path, temporary)
            else:
                how = _same_folder(artifact, root, temporary)
            temporary.rename(output)
            disk.fsync_folder(output.parent)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
    return how


def _folder(artifact: Artifact) -> Path:
    for parent in artifact.path.parents:
        if parent.name == artifact.id:
            return parent
    raise InvalidFile(str(artifact.path), found="a file outside the store", expected="an artifact")


def _same_folder(artifact: Artifact, root: Path, target: Path) -> str:
    hows = set()
    for file in artifact.files:
        place = target / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        hows.add(_same(root / file.name, place))
    return " and ".join(sorted(hows))


def _same(source: Path, target: Path) -> str:
    real = source.resolve()
    if not disk.hard_link(real, target):
        if disk.reflink(real, target):
            return "reflink"
        disk.require_space(target.parent, real.stat().st_size, subject=str(target))
        disk.copy(real, target)
        return "copy"
    return "hard link"
