"""A model from a checkpoint's folder or a ``.gguf`` file: your own fine-tune, or a download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qwharf.catalog.data import models, presets
from qwharf.types import Architecture, Format, Model, Thinking


def read_local(path: Path) -> Model:
    """The model at ``path``, named after it.

    Its kind of thinking is read from its chat template, its context from its configuration; where
    shape and rope are those of a member of the family, that member's context rules hold.

    Raises:
        InvalidFile: what lies there is damaged or no checkpoint.
        UnsupportedArchitecture: it is a model, but not a Qwen3 one.
    """
    path = path.resolve()
    return _folder(path) if path.is_dir() else _gguf(path)


def _folder(path: Path) -> Model:
    from qwharf.formats.checkpoint import read_checkpoint, thinking_of

    found = read_checkpoint(path)
    return _model(
        path,
        name=path.name,
        architecture=found.architecture,
        thinking=thinking_of(found.chat_template),
        format=found.format,
        license=str(found.config.get("license") or "see the checkpoint"),
    )


def _gguf(path: Path) -> Model:
    from qwharf.formats.checkpoint import thinking_of
    from qwharf.formats.ggml_types import QUANTIZATIONS_BY_FILE_TYPE
    from qwharf.formats.gguf import architecture_from_gguf, read_gguf

    file = read_gguf(path)
    metadata = file.metadata
    quantization = QUANTIZATIONS_BY_FILE_TYPE.get(_number(metadata.get("general.file_type")))
    template = metadata.get("tokenizer.chat_template")
    return _model(
        path,
        name=path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name,
        architecture=architecture_from_gguf(file),
        thinking=thinking_of(template if isinstance(template, str) else None),
        format=Format("gguf", quantization or _commonest_type(file)),
        license=str(metadata.get("general.license") or "see the checkpoint"),
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _commonest_type(file: Any) -> str:
    """The type of most weights, for a file that does not say what it is."""
    sums: dict[str, int] = {}
    for tensor in file.tensors.values():
        sums[tensor.type.name] = sums.get(tensor.type.name, 0) + tensor.size_bytes
    return max(sums, key=lambda k: sums[k]).lower() if sums else "f32"


def _model(
    path: Path,
    *,
    name: str,
    architecture: Architecture,
    thinking: Thinking,
    format: Format,
    license: str,
) -> Model:
    relative = next((m for m in models() if _same_shape(m.architecture, architecture)), None)
    positions = architecture.max_position_embeddings
    return Model(
        name=name,
        title=name,
        architecture=architecture,
        thinking=thinking,
        sampling=presets(thinking),
        native_context_tokens=relative.native_context_tokens if relative else positions,
        max_context_tokens=relative.max_context_tokens if relative else positions,
        license=license,
        path=path,
        path_format=format,
        note=f"shaped like {relative.title}" if relative else "",
    )


def _same_shape(a: Architecture, b: Architecture) -> bool:
    """Whether only token ids and the rows of the vocabulary tell them apart."""
    return a == replace(
        b, bos_token_id=a.bos_token_id, eos_token_id=a.eos_token_id, vocab_size=a.vocab_size
    )
