"""Conversion of any stored weights: to a folder (safetensors, MLX), or from quantised ones to GGUF.

:mod:`qwharf.artifacts.convert` decides which engine does a conversion; this is what it hands on to
:mod:`qwharf.artifacts.folder_streaming`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.artifacts import gguf_metadata, sources
from qwharf.artifacts.companions import companions
from qwharf.artifacts.encoders import Encoder, GgmlEncoder, Part
from qwharf.artifacts.folder_streaming import FolderOutput, OutFile, Unit
from qwharf.artifacts.gguf_metadata import Metadata
from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.positioned import Place, itemsize_of
from qwharf.artifacts.stored import Stored
from qwharf.artifacts.targets import made_tensors, plain_dtype, target_of
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.gguf_writer import Header, gguf_header
from qwharf.formats.safetensors import safetensors_header
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors, gguf_name, gguf_tensors
from qwharf.quantize.mixing import mix_of, tensor_type
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


# ------------------------------------------------------------------------------------- folders


def folder_output(
    stored: Stored, format: Format, path: Path, identity: str, shard_bytes: int = SHARD_BYTES
) -> FolderOutput:
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
        try:
            parts = made.encoder.parts(made.name, rows, made.columns, stack)
        except ValueError as e:
            raise FormatUnavailable(
                made.name,
                found=str(e),
                expected=f"a shape that {format} can hold",
                hint="choose another format, such as safetensors:bf16 or gguf:q8_0",
                tensor=made.name,
            ) from e
        planned.append(_Planned(made.name, pieces, made.encoder, tuple(parts)))
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
    return FolderOutput(
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
        encoder=unit.encoder,
        parts=tuple(zip(unit.parts, places, strict=True)),
    )


# ---------------------------------------------------------------------------------------- GGUF


def gguf_output(
    stored: Stored, format: Format, path: Path, identity: str, name: str | None
) -> FolderOutput:
    """The plan of a GGUF file.

    Raises:
        InvalidFile: the source lacks what goes along with weights.
    """
    arch = stored.arch
    if stored.checkpoint is not None:
        metadata = sources.checkpoint_metadata(stored.checkpoint, name)
    elif stored.gguf is not None:
        metadata = sources.gguf_file_metadata(stored.gguf, name)
    else:
        raise ValueError("neither a checkpoint nor a GGUF file")
    own = gguf_metadata.file_metadata(mix_of(format.quantization).file_type)
    metadata = {key: own.get(key, value) for key, value in metadata.items()} | own
    specs = gguf_tensors(arch)
    kinds = {s.name: tensor_type(s, arch, format.quantization) for s in specs}
    header = checked_header(metadata, specs, kinds, stored.files[0])
    pieces: dict[str, list[Matrix]] = {}
    for spec in checkpoint_tensors(arch, lm_head=not arch.tie_word_embeddings):
        pieces.setdefault(gguf_name(spec.name) or "", []).append(stored.matrices[spec.name])
    units = []
    for spec in specs:
        encoder = GgmlEncoder(kinds[spec.name], len(spec.shape) == 1)
        found = tuple(pieces[spec.name])
        rows = sum(p.shape[0] for p in found)
        parts = encoder.parts(spec.name, rows, spec.shape[-1], len(found))
        units.append(_placed(_Planned(spec.name, found, encoder, tuple(parts)), 0, header.offsets))
    file = OutFile(name=path.name, header=header.data, size_bytes=header.size_bytes)
    return FolderOutput(
        path=path,
        files=(file,),
        units=tuple(units),
        identity=identity,
        texts={},
        copies={},
        single=True,
    )


def checked_header(
    metadata: Metadata,
    specs: Sequence[TensorSpec],
    kinds: Mapping[str, GgmlType],
    source: Path,
) -> Header:
    """The header of a GGUF file with these tensors.

    Raises:
        InvalidFile: a lone surrogate in a token or template, or a number out of range.
    """
    try:
        return gguf_header(metadata, [(s.name, s.shape, kinds[s.name]) for s in specs])
    except ValueError as e:
        raise InvalidFile(
            str(source.parent),
            found=f"a value that no GGUF file can hold: {str(e)[:200]}",
            expected="texts in UTF-8, and numbers in range",
            hint="fetch config.json, generation_config.json and the tokenizer's files again",
        ) from e
