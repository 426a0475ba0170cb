"""What a conversion writes: files, and the tensors in them that each matrix becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts.encoders import Encoder, Part
from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.positioned import Place

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One matrix, or matrices stacked, to be stored as one or more tensors."""

    name: str
    pieces: tuple[Matrix, ...]
    encoders: tuple[Encoder, ...]
    """One for each piece; they differ in what they hold important, not in what they make."""
    parts: tuple[tuple[Part, Place], ...]

    @property
    def elements(self) -> int:
        """Weights of all pieces."""
        return sum(rows * columns for rows, columns in (p.shape for p in self.pieces))

    @property
    def size_bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(place.size_bytes for _, place in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """One file: its header, then tensors at the places that units name."""

    name: str
    header: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A folder of files, or one file."""

    path: Path
    """The folder, or the file where ``single``."""
    files: tuple[OutFile, ...]
    units: tuple[Unit, ...]
    identity: str
    """What the bytes depend on beyond the layout: sources, versions."""
    texts: Mapping[str, bytes]
    """Small files beside the weights."""
    copies: Mapping[str, Path]
    single: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(f.size_bytes for f in self.files)

    def digest(self) -> str:
        """Identifies the plan: two runs with the same digest write the same bytes."""
        digest = hashlib.sha256(json.dumps([VERSION, self.identity]).encode())
        for file in self.files:
            digest.update(f"{file.name} {file.size_bytes}\n".encode() + file.header)
        for unit in self.units:
            digest.update(repr((unit.name, unit.encoders[0], unit.pieces)).encode())
        return digest.hexdigest()
