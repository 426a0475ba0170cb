"""Artifact records: which contents, under which names, make up which model, and whence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from qwharf.artifacts import disk
from qwharf.artifacts.versioned import read_versioned
from qwharf.codec import encode
from qwharf.errors import InvalidFile
from qwharf.types import Artifact, Format, StoredFile

_ID = re.compile(r"[0-9a-f]{64}")
_NAME_BAD = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
VERSION = 1
ORIGIN = ("converted_from", "importance", "calibration")
"""What of the provenance tells one conversion from another: the source, and how it was weighed or
what it was calibrated on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One reason why an artifact is here: the same files may be known under several names."""

    model: str
    added_at: float
    """Seconds since 1970, UTC."""
    provenance: Mapping[str, str] = field(default_factory=dict)

    def same_as(self, other: Label) -> bool:
        """Whether ``other`` is a newer edition of this label."""
        keys = (*ORIGIN, "repository")
        return self.model == other.model and all(
            self.provenance.get(k) == other.provenance.get(k) for k in keys
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``records/<id>.json``."""

    id: str
    format: Format
    entry: str | None
    """The file to hand to an engine; ``None``: the folder."""
    files: tuple[StoredFile, ...]
    labels: tuple[Label, ...]
    version: int = VERSION

    def artifact(self, label: Label, folder: Path) -> Artifact:
        """The noun of this record under ``label``, materialised in ``folder``."""
        return Artifact(
            id=self.id,
            model=label.model,
            format=self.format,
            path=folder if self.entry is None else folder / self.entry,
            files=self.files,
            provenance=dict(label.provenance),
        )


def artifact_id(files: Iterable[StoredFile]) -> str:
    """sha256 over the sorted ``sha256  name`` lines."""
    lines = sorted(f"{f.sha256}  {f.name}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_name(name: str, *, subject: str) -> str:
    """``name`` if it can be a file below a folder on every system.

    Raises:
        InvalidFile: it is absolute, climbs out, or has characters that some system forbids.
    """
    parts = name.split("/")
    bad = (
        not name
        or len(name.encode("utf-8", "surrogatepass")) > 1024
        or _NAME_BAD.search(name) is not None
        or any(
            p in ("", ".", "..")
            or len(p.encode("utf-8", "surrogatepass")) > 240
            or p != p.rstrip(" .")
            or _RESERVED.fullmatch(p)
            for p in parts
        )
        or any("\ud800" <= c <= "\udfff" for c in name)
        or PurePosixPath(name).is_absolute()
    )
    if bad:
        raise InvalidFile(
            subject,
            found=f"a file name {name!r}",
            expected="a relative path of plain names",
            hint="rename the file, or report the repository",
        )
    return name


class Records:
    """The folder of records. Writers hold the store's lock."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "records"

    def path(self, id: str) -> Path:
        """Where the record lies."""
        if not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is not an artifact id")
        return self.folder / f"{id}.json"

    def ids(self) -> list[str]:
        """All recorded ids."""
        if not self.folder.is_dir():
            return []
        stems = (p.stem for p in self.folder.iterdir() if p.suffix == ".json")
        return sorted(s for s in stems if _ID.fullmatch(s))

    def read(self, id: str) -> Record | None:
        """The record, or ``None`` if there is none.

        Raises:
            InvalidFile: it is not a record of this version, or not of this id.
        """
        path = self.path(id)

        def check(record: Record) -> None:
            if record.id != id or artifact_id(record.files) != id:
                raise ValueError("the id does not belong to the files")
            for file in record.files:
                check_name(file.name, subject=str(path))
                if not _ID.fullmatch(file.sha256):
                    raise ValueError(f"{file.sha256!r} is not a sha256")
            if record.entry is not None and record.entry not in {f.name for f in record.files}:
                raise ValueError(f"entry {record.entry!r} is not one of the files")
            if not record.labels:
                raise ValueError("no labels")

        return read_versioned(
            path,
            Record,
            VERSION,
            what="an artifact record",
            hint="remove it, and bring the model in again; `qwharf store verify` lists all that is "
            "damaged",
            check=check,
        )

    def readable(self) -> Iterator[Record]:
        """All records that can be read, newest first; damaged ones are left to ``verify``."""
        records = []
        for id in self.ids():
            try:
                record = self.read(id)
            except InvalidFile:
                continue
            if record is not None:
                records.append(record)
        yield from sorted(records, key=lambda r: max(x.added_at for x in r.labels), reverse=True)

    def write(self, record: Record) -> None:
        """Store ``record``, replacing an older one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        disk.write_json(self.path(record.id), encode(record))

    def delete(self, id: str) -> None:
        """Forget the record."""
        self.path(id).unlink(missing_ok=True)
        if self.folder.is_dir():
            disk.fsync_folder(self.folder)
