"""The plan of a GGUF file: its header, and from which matrices each tensor is made, as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwharf.artifacts import gguf_metadata
from qwharf.artifacts.encoders import GgmlEncoder
from qwharf.artifacts.gguf_metadata import Metadata
from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.output import OutFile, Output, Unit
from qwharf.artifacts.positioned import Place
from qwharf.artifacts.source_metadata import source_metadata
from qwharf.artifacts.stored import Stored
from qwharf.artifacts.weighing import importances
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.gguf_writer import Header, gguf_header
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors, gguf_name, gguf_tensors
from qwharf.quantize.imatrix import Importance, recorded
from qwharf.quantize.mixing import mix_of, tensor_type

if TYPE_CHECKING:
    from numpy.typing import NDArray


def gguf_output(
    stored: Stored,
    quantization: str,
    path: Path,
    identity: str,
    name: str | None = None,
    importance: Importance | None = None,
) -> Output:
    """The plan of a GGUF file.

    Args:
        stored: the source.
        quantization: a key of :data:`~qwharf.quantize.mixing.MIXES`.
        path: of the file.
        identity: see :class:`Output`.
        name: what the model is called, if not as the source says.
        importance: how much an error in each column weighs.

    Raises:
        FormatUnavailable: the quantisation is for mixtures of experts, and the model is none; or
            ``importance`` lacks a tensor that cannot be made without.
        InvalidFile: the source lacks what goes along with weights.
    """
    arch = stored.arch
    mix = mix_of(quantization)
    if mix.experts is not None and not arch.is_moe:
        raise FormatUnavailable(
            str(stored.files[0]),
            found="a dense model",
            expected=f"a mixture of experts for gguf:{quantization}",
            hint="gguf:q4_k_m is the usual choice",
        )
    own = gguf_metadata.file_metadata(mix.file_type)
    metadata = source_metadata(stored, name)
    metadata = {key: own.get(key, value) for key, value in metadata.items()} | own
    specs = gguf_tensors(arch)
    weighted = importance is not None
    kinds = {s.name: tensor_type(s, arch, quantization, weighted=weighted) for s in specs}
    weights: Mapping[str, NDArray[np.float32]] = {}
    if importance is not None:
        metadata |= recorded(importance)
        weights = importances(importance, specs, kinds, quantization)
    header = _header(metadata, specs, kinds, stored.files[0])
    pieces: dict[str, list[Matrix]] = {}
    for spec in checkpoint_tensors(arch, lm_head=not arch.tie_word_embeddings):
        pieces.setdefault(gguf_name(spec.name) or "", []).append(stored.matrices[spec.name])
    units = [
        _unit(s, kinds[s.name], pieces[s.name], header.offsets[s.name], weights.get(s.name))
        for s in specs
    ]
    return Output(
        path=path,
        files=(OutFile(name=path.name, header=header.data, size_bytes=header.size_bytes),),
        units=tuple(units),
        identity=identity,
        texts={},
        copies={},
        single=True,
    )


def _unit(
    spec: TensorSpec,
    kind: GgmlType,
    pieces: Sequence[Matrix],
    offset: int,
    weights: NDArray[np.float32] | None,
) -> Unit:
    by_piece = (None,) * len(pieces) if weights is None else weights
    encoders = tuple(GgmlEncoder(kind, len(spec.shape) == 1, w) for w in by_piece)
    rows = sum(p.shape[0] for p in pieces)
    (part,) = encoders[0].parts(spec.name, rows, spec.shape[-1], len(pieces))
    return Unit(
        name=spec.name,
        pieces=tuple(pieces),
        encoders=encoders,
        parts=((part, Place(0, offset, part.grid, 1)),),
    )


def _header(
    metadata: Metadata,
    specs: Sequence[TensorSpec],
    kinds: Mapping[str, GgmlType],
    source: Path,
) -> Header:
    """The file's header.

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
