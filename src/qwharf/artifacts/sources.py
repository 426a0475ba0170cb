"""What a conversion reads: where the rows of each output tensor lie, and the metadata.

Two kinds of source give the same description: a checkpoint folder in Hugging Face layout, and a
GGUF file of unquantised weights (also a split one). Nothing but headers is read here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts import gguf_metadata
from qwharf.artifacts.gguf_metadata import Metadata
from qwharf.artifacts.streaming import Piece
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.checkpoint import Checkpoint, read_checkpoint
from qwharf.formats.ggml_types import GGML_TYPES, QUANTIZATIONS_BY_FILE_TYPE, GgmlType
from qwharf.formats.gguf import GgufFile, GgufTensor, read_gguf, split_parts
from qwharf.formats.gguf_check import validate_for_engine
from qwharf.formats.safetensors import TensorEntry
from qwharf.formats.tensors import TensorSpec, gguf_tensors
from qwharf.types import Architecture, Format

SPLIT_KEYS = frozenset({"split.no", "split.count", "split.tensors.count"})
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")
"""Stored by old tools; computed, not learned."""

TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF names to those of a checkpoint, within a layer."""

FLOATS = {"F32": GGML_TYPES["F32"], "F16": GGML_TYPES["F16"], "BF16": GGML_TYPES["BF16"]}
HASH = re.compile(r"[0-9a-f]{12,}")
FRONT_MATTER_BYTES = 64 << 10
REFETCH = "get the checkpoint again; it is incomplete or belongs to another model"


@dataclass(frozen=True, slots=True)
class Weights:
    """The rows of one output tensor, in order."""

    type: GgmlType
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A read source."""

    arch: Architecture
    format: Format
    metadata: Metadata
    """All but what depends on the target."""
    weights: Mapping[str, Weights]
    """By GGUF name; one for each of the architecture's tensors."""
    files: Sequence[Path]


def read_source(path: Path, name: str | None = None) -> Source:
    """Read the headers of a checkpoint folder or a GGUF file.

    Args:
        path: the folder or file.
        name: what the model is called, if not as the source says.

    Raises:
        InvalidFile: damaged or incomplete; names the file and the tensor.
        UnsupportedArchitecture: not a Qwen3.
        FormatUnavailable: its weights are quantised.
    """
    try:
        return _read_folder(path, name) if path.is_dir() else _read_gguf(path, name)
    except OSError as e:
        raise InvalidFile(
            str(e.filename or path),
            found=e.strerror or str(e),
            expected="a checkpoint folder or a .gguf file",
            hint="check the path",
        ) from e


def refuse_quantized(path: Path, found: str) -> FormatUnavailable:
    """The error for weights that were quantised before."""
    return FormatUnavailable(
        str(path),
        found=f"{found} weights",
        expected="unquantised weights: bf16, f16 or f32",
        hint="quantising twice loses quality; convert the original bf16 weights",
    )


# ---------------------------------------------------------------------------------- checkpoint


def _read_folder(folder: Path, name: str | None) -> Source:
    checkpoint = read_checkpoint(folder)
    if checkpoint.format.quantization not in ("bf16", "f16", "f32"):
        raise refuse_quantized(folder, str(checkpoint.format))
    arch = checkpoint.architecture
    used: set[str] = set()
    weights = {spec.name: _find(checkpoint, spec, used) for spec in gguf_tensors(arch)}
    if arch.tie_word_embeddings:
        used.add("lm_head.weight")  # the 0.6B and 1.7B store a copy of the embedding
    extra = [n for n in checkpoint.tensors if n not in used and not IGNORED.fullmatch(n)]
    if extra:
        raise InvalidFile(
            str(checkpoint.tensors[extra[0]][0]),
            found=f"tensor {extra[0]}" + (f" and {len(extra) - 1} more" if extra[1:] else ""),
            expected="the tensors of a Qwen3 only",
            hint="merge adapters into the weights first; other extensions cannot be converted",
            tensor=extra[0],
        )
    return Source(
        arch=arch,
        format=checkpoint.format,
        metadata=checkpoint_metadata(checkpoint, name),
        weights=weights,
        files=checkpoint.weight_files,
    )


def checkpoint_metadata(checkpoint: Checkpoint, name: str | None = None) -> Metadata:
    """All that a GGUF file says of a checkpoint, but what depends on the target.

    Raises:
        InvalidFile: the tokenizer is missing, damaged or not Qwen's kind.
    """
    arch, folder = checkpoint.architecture, checkpoint.folder
    return gguf_metadata.model_metadata(
        arch,
        name=name or _name_of(checkpoint),
        license_id=_license_of(folder),
        generation_config=checkpoint.generation_config,
    ) | gguf_metadata.tokenizer_metadata(
        folder, arch, checkpoint.chat_template, checkpoint.generation_config
    )


def _find(checkpoint: Checkpoint, spec: TensorSpec, used: set[str]) -> Weights:
    if spec.name in TOP:
        return _whole(checkpoint, TOP[spec.name], spec.shape, used)
    _, layer, part, _ = spec.name.split(".")
    prefix = f"model.layers.{layer}."
    if not part.endswith("_exps"):
        return _whole(checkpoint, f"{prefix}{PARTS[part]}.weight", spec.shape, used)
    kind = part.removeprefix("ffn_").removesuffix("_exps")
    stacked = _stacked_name(checkpoint, prefix, kind)
    if stacked is not None:
        return _stacked(checkpoint, stacked, spec, kind, used)
    found = [
        _whole(checkpoint, f"{prefix}mlp.experts.{e}.{kind}_proj.weight", spec.shape[1:], used)
        for e in range(spec.shape[0])
    ]
    types = {w.type.name for w in found}
    if len(types) > 1:
        raise InvalidFile(
            str(found[0].pieces[0].path),
            found=f"experts of {spec.name} as {' and '.join(sorted(types))}",
            expected="one type for all experts of a layer",
            hint="save the checkpoint again in one type",
            tensor=spec.name,
        )
    return Weights(found[0].type, tuple(p for w in found for p in w.pieces))


def _whole(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], used: set[str]) -> Weights:
    path, entry = _entry(checkpoint, name, shape)
    used.add(name)
    rows = math.prod(shape[:-1])
    return Weights(_type_of(path, entry), (Piece(path, entry.offset, rows),))


def _stacked_name(checkpoint: Checkpoint, prefix: str, kind: str) -> str | None:
    """Transformers 5 may save the experts of a layer as one tensor, gate and up together."""
    name = f"{prefix}mlp.experts.{'down_proj' if kind == 'down' else 'gate_up_proj'}"
    return next((n for n in (name, f"{name}.weight") if n in checkpoint.tensors), None)


def _stacked(
    checkpoint: Checkpoint, name: str, spec: TensorSpec, kind: str, used: set[str]
) -> Weights:
    experts, rows, columns = spec.shape
    height = rows if kind == "down" else 2 * rows
    path, entry = _entry(checkpoint, name, (experts, height, columns))
    used.add(name)
    type_ = _type_of(path, entry)
    step = type_.size_bytes(columns)
    first = rows * step if kind == "up" else 0
    starts = (entry.offset + e * height * step + first for e in range(experts))
    return Weights(type_, tuple(Piece(path, start, rows) for start in starts))


def _entry(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> tuple[Path, TensorEntry]:
    found = checkpoint.tensors.get(name)
    if found is None:
        raise InvalidFile(
            str(checkpoint.folder),
            found=f"no tensor {name}",
            expected=f"one of shape {list(shape)}, by config.json",
            hint=REFETCH,
            tensor=name,
        )
    path, entry = found
    if entry.shape != shape:
        raise InvalidFile(
            str(path),
            found=f"{name} of shape {list(entry.shape)}",
            expected=f"{list(shape)}, by config.json",
            hint=REFETCH,
            tensor=name,
        )
    return path, entry


def _type_of(path: Path, entry: TensorEntry) -> GgmlType:
    if entry.dtype not in FLOATS:
        raise refuse_quantized(path, f"{entry.name}: {entry.dtype}")
    return FLOATS[entry.dtype]


def _name_of(checkpoint: Checkpoint) -> str:
    """The repository's name, else the folder's, unless that is a hash."""
    given = checkpoint.config.get("_name_or_path")
    names = [given.rstrip("/").rpartition("/")[2]] if isinstance(given, str) else []
    names.append(checkpoint.folder.absolute().name)
    return next((n for n in names if n and not HASH.fullmatch(n)), "Qwen3")


def _license_of(folder: Path) -> str | None:
    """The licence in the front matter of the model card."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(FRONT_MATTER_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    lines = iter(text.splitlines())
    if next(lines, "") != "---":
        return None
    for line in _until(lines, "---"):
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("'\"")[:100]
    return None


def _until(lines: Iterator[str], end: str) -> Iterator[str]:
    for line in lines:
        if line == end:
            return
        yield line


# ---------------------------------------------------------------------------------------- GGUF


def _read_gguf(path: Path, name: str | None) -> Source:
    parts = split_parts(path)
    first = read_gguf(parts[0], keep_arrays=True)
    arch = validate_for_engine(first)
    tensors: dict[str, tuple[Path, GgufTensor]] = {}
    for part in parts:
        file = first if part == parts[0] else read_gguf(part)
        tensors |= {n: (part, t) for n, t in file.tensors.items()}
    weights: dict[str, Weights] = {}
    for spec in gguf_tensors(arch):
        part, tensor = tensors[spec.name]
        if tensor.type.name not in FLOATS:
            raise refuse_quantized(part, f"{spec.name}: {tensor.type.name}")
        rows = math.prod(spec.shape[:-1])
        weights[spec.name] = Weights(tensor.type, (Piece(part, tensor.offset, rows),))
    number = first.metadata.get("general.file_type")
    quantization = QUANTIZATIONS_BY_FILE_TYPE.get(number if isinstance(number, int) else -1, "")
    if quantization not in ("bf16", "f16", "f32"):
        quantization = weights["token_embd.weight"].type.name.lower()
    return Source(
        arch=arch,
        format=Format("gguf", quantization),
        metadata=gguf_file_metadata(first, name),
        weights=weights,
        files=parts,
    )


def gguf_file_metadata(file: GgufFile, name: str | None = None) -> Metadata:
    """Every key as it was, but those that belong to the container; ``name`` replaces the model's.

    Raises:
        InvalidFile: a value that cannot be written again.
    """
    left_out = SPLIT_KEYS | {"general.alignment"}
    nested = [key for key, kind in file.kinds.items() if kind == "[array]"]
    if nested:
        raise InvalidFile(
            str(file.path),
            found=f"{nested[0]}, a list of lists",
            expected="plain values",
            hint="convert the original checkpoint instead",
        )
    metadata = {
        key: (file.kinds[key], value) for key, value in file.metadata.items() if key not in left_out
    }
    if name is not None:
        metadata["general.name"] = ("str", name)
    return metadata
