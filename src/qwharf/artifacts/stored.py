"""A model on disk, whatever its format: its matrices, and where its description is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts.finding import find_matrices
from qwharf.artifacts.matrices import Ggml, Matrix
from qwharf.artifacts.positioned import Region
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.checkpoint import Checkpoint, read_checkpoint
from qwharf.formats.ggml_types import QUANTIZATIONS_BY_FILE_TYPE
from qwharf.formats.gguf import GgufFile, GgufTensor, read_gguf, split_parts
from qwharf.formats.gguf_check import validate_for_engine
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors, gguf_name
from qwharf.formats.weights import ggml
from qwharf.types import Architecture, Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A model on disk: its matrices by the names of a checkpoint."""

    arch: Architecture
    format: Format
    matrices: Mapping[str, Matrix]
    """One for each of :func:`checkpoint_tensors`; a tied output matrix is left out."""
    files: tuple[Path, ...]
    checkpoint: Checkpoint | None = None
    gguf: GgufFile | None = None
    """Where it came from, one of the two."""


def read_stored(path: Path) -> Stored:
    """Read the headers of a checkpoint folder or of a GGUF file with all its parts.

    Raises:
        InvalidFile: damaged or incomplete; names the file and the tensor.
        UnsupportedArchitecture: not a Qwen3.
        FormatUnavailable: weights of a kind that is not read here.
    """
    try:
        return _read_folder(path) if path.is_dir() else _read_gguf(path)
    except OSError as e:
        raise InvalidFile(
            str(e.filename or path),
            found=e.strerror or str(e),
            expected="a checkpoint folder or a .gguf file",
            hint="check the path",
        ) from e


# ---------------------------------------------------------------------------------- checkpoint


def _read_folder(folder: Path) -> Stored:
    checkpoint = read_checkpoint(folder)
    return Stored(
        arch=checkpoint.architecture,
        format=checkpoint.format,
        matrices=find_matrices(checkpoint),
        files=checkpoint.weight_files,
        checkpoint=checkpoint,
    )


# ---------------------------------------------------------------------------------------- GGUF


def _read_gguf(path: Path) -> Stored:
    parts = split_parts(path)
    first = read_gguf(parts[0], keep_arrays=True)
    arch = validate_for_engine(first)
    tensors: dict[str, GgufTensor] = dict(first.tensors)
    for part in parts[1:]:
        tensors |= read_gguf(part).tensors
    matrices = {}
    for spec in checkpoint_tensors(arch, lm_head=not arch.tie_word_embeddings):
        matrices[spec.name] = _gguf_matrix(tensors, spec, arch)
    number = first.metadata.get("general.file_type", -1)
    quantization = QUANTIZATIONS_BY_FILE_TYPE.get(number if type(number) is int else -1, "")
    kinds = [t.type.name.lower() for t in tensors.values() if len(t.shape) > 1]
    return Stored(
        arch=arch,
        format=Format("gguf", quantization or max(kinds, key=kinds.count)),
        matrices=matrices,
        files=tuple(parts),
        gguf=first,
    )


def _gguf_matrix(tensors: Mapping[str, GgufTensor], spec: TensorSpec, arch: Architecture) -> Matrix:
    name = gguf_name(spec.name)
    tensor = tensors[name or ""]
    if tensor.type.name not in ggml.TYPES:
        raise FormatUnavailable(
            str(tensor.path),
            found=f"{tensor.name} of type {tensor.type.name}",
            expected="one of " + ", ".join(ggml.TYPES),
            hint="convert the original bf16 weights",
            tensor=tensor.name,
        )
    rows = math.prod(spec.shape[:-1])
    offset = tensor.offset
    if spec.role == "expert":
        number = int(spec.name.split(".")[5])
        offset += number * (tensor.size_bytes // arch.num_experts)
    size = tensor.type.size_bytes(spec.shape[-1])
    return Ggml(Region(tensor.name, tensor.path, offset, "U8", (rows, size)), tensor.type)
