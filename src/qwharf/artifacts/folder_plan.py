"""The plan of a folder of safetensors: its tensors, their shards, and the files beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.artifacts.companions import companions
from qwharf.artifacts.encoders import Encoder, Part
from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.output import OutFile, Output, Unit
from qwharf.artifacts.positioned import Place, itemsize_of
from qwharf.artifacts.repacking import repacked
from qwharf.artifacts.stored import Stored
from qwharf.artifacts.targets import made_tensors, plain_dtype, target_of
from qwharf.errors import FormatUnavailable
from qwharf.formats.safetensors import safetensors_header
from qwharf.types import Format

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class _Planned:
    """One unit before its place is known."""

    name: str
    pieces: tuple[Matrix, ...]
    encoder: Encoder
    parts: tuple[Part, ...]

    @property
    def size_bytes(self) -> int:
        return sum(_part_bytes(p) for p in self.parts)


def _part_bytes(part: Part) -> int:
    return part.grid[0] * part.grid[1] * itemsize_of(part.dtype)


def folder_output(
    stored: Stored, format: Format, path: Path, identity: str, shard_bytes: int = SHARD_BYTES
) -> Output:
    """The plan of a folder of safetensors.

    Raises:
        FormatUnavailable: the format cannot hold the model's shapes; names the tensor.
        InvalidFile: the source lacks what goes along with weights.
    """
    target = target_of(format, stored.arch, plain_dtype(stored.matrices))
    planned = []
    for made in made_tensors(stored.arch, target):
        pieces = tuple(stored.matrices[name] for name in made.sources)
        rows = sum(p.shape[0] for p in pieces)
        stack = len(pieces)
        encoder = repacked(made.encoder, pieces[0]) if stack == 1 else made.encoder
        try:
            parts = encoder.parts(made.name, rows, made.columns, stack)
        except ValueError as e:
            raise FormatUnavailable(
                made.name,
                found=str(e),
                expected=f"a shape that {format} can hold",
                hint="choose another format, such as safetensors:bf16 or gguf:q8_0",
                tensor=made.name,
            ) from e
        planned.append(_Planned(made.name, pieces, encoder, tuple(parts)))
    shards = list(_shards(planned, shard_bytes))
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    kind = {"format": "mlx" if format.container == "mlx" else "pt"}
    files, units = [], []
    weight_map: dict[str, str] = {}
    for number, (name, shard) in enumerate(zip(names, shards, strict=True)):
        ordered = sorted(
            (p for unit in shard for p in unit.parts),
            key=lambda p: -itemsize_of(p.dtype),  # so that all are aligned
        )
        header = safetensors_header([(p.name, p.dtype, p.shape) for p in ordered], kind)
        files.append(OutFile(name=name, header=header.data, size_bytes=header.size_bytes))
        weight_map |= {p.name: name for p in ordered}
        units += [_placed(unit, number, header.offsets) for unit in shard]
    along = companions(stored, target.config, target.plain, for_mlx=format.container == "mlx")
    texts = dict(along.texts)
    if len(shards) > 1 or format.container == "mlx":
        total = sum(u.size_bytes for u in planned)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        texts["model.safetensors.index.json"] = json.dumps(index, indent=2).encode() + b"\n"
    return Output(
        path=path,
        files=tuple(files),
        units=tuple(units),
        identity=identity,
        texts=texts,
        copies=along.copies,
    )


def _shards(planned: Sequence[_Planned], limit: int) -> Iterator[list[_Planned]]:
    shard: list[_Planned] = []
    size = 0
    for unit in planned:
        if shard and size + unit.size_bytes > limit:
            yield shard
            shard, size = [], 0
        shard.append(unit)
        size += unit.size_bytes
    yield shard


def _placed(unit: _Planned, file: int, offsets: Any) -> Unit:
    places = (Place(file, offsets[p.name], p.grid, itemsize_of(p.dtype)) for p in unit.parts)
    return Unit(
        name=unit.name,
        pieces=unit.pieces,
        encoders=(unit.encoder,) * len(unit.pieces),
        parts=tuple(zip(unit.parts, places, strict=True)),
    )
