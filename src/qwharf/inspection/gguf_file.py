"""Inspect a GGUF file with all its parts: a model, an adapter, an importance matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwharf.catalog.local import read_local
from qwharf.errors import InvalidFile
from qwharf.formats.gguf import GgufFile, GgufTensor, read_gguf, split_parts
from qwharf.formats.tensors import active_parameter_count, gguf_tensors, parameter_count
from qwharf.inspection import grouping, oddities, vocabulary
from qwharf.inspection.needs import needs_of
from qwharf.inspection.report import Adapter, Context, File, Inspection, Oddity, Tensor, What
from qwharf.inspection.templates import recognise
from qwharf.inspection.texts import plain
from qwharf.types import Model

SAMPLING = {
    "temp": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "penalty_present": "presence_penalty",
}
"""Keys below ``general.sampling.`` by their names in ``generation_config.json``."""


def inspect_gguf(path: Path, name: str | None = None) -> Inspection:
    """Read the headers of a file, or of all parts of a split one.

    Raises:
        InvalidFile: a header is damaged or a part is missing.
        StorageError: a file may not be read.
    """
    parts = split_parts(path)
    first = read_gguf(parts[0], keep_arrays=True)
    others = [read_gguf(part) for part in parts[1:]]
    raw = [t for file in (first, *others) for t in file.tensors.values()]
    tensors = grouping.of_gguf(raw)
    files = tuple(
        File(name=f.path.name, size_bytes=f.path.stat().st_size, tensors=len(f.tensors))
        for f in (first, *others)
    )
    what = _what(first, tensors)
    model, problem = _model(parts[0]) if what == "model" else (None, None)
    found = [] if problem is None else [problem]
    arch = model.architecture if model else None
    template = first.metadata.get("tokenizer.chat_template")
    seen = recognise(template) if isinstance(template, str) else None
    words = vocabulary.of_gguf(first, arch.vocab_size if arch else None)
    context = context_of(model) if model else None
    generation = _generation(first.metadata)
    size = sum(t.size_bytes for t in tensors)
    parameters = parameter_count(arch) if arch else None
    if model and arch and context:
        by_name = {t.name: t.shape for t in tensors}
        found += [
            *oddities.of_names(
                by_name, gguf_tensors(arch), tied=arch.tie_word_embeddings, head="output.weight"
            ),
            *_of_keys(first),
            *_of_mix(first, tensors, model),
            *oddities.of_vocabulary(words, arch.vocab_size),
            *oddities.of_template(seen),
            *oddities.of_generation(generation, model.sampling, container="gguf"),
            *oddities.of_context(context),
        ]
    own = first.metadata.get("general.name")
    return Inspection(
        path=path,
        what=what,
        container="gguf",
        format=model.path_format if model else None,
        name=name or (own if isinstance(own, str) else path.name),
        relative=relative_of(model),
        architecture=arch,
        parameters=parameters,
        active_parameters=active_parameter_count(arch) if arch else None,
        size_bytes=size,
        bits_per_weight=grouping.bits_per_weight(size, parameters),
        files=files,
        context=context,
        thinking=model.thinking if model and seen else None,
        by_type=grouping.by_type(tensors),
        by_kind=grouping.by_kind(tensors, arch),
        metadata=_metadata(first),
        vocabulary=words,
        template=seen,
        generation=generation,
        recommended=model.sampling if model else {},
        adapter=_adapter(first, raw, tensors) if what == "adapter" else None,
        needs=needs_of(arch, context, size, llama_cpp=True) if arch and context else (),
        oddities=tuple(found),
        tensors=tensors,
    )


def _what(file: GgufFile, tensors: tuple[Tensor, ...]) -> What:
    kind = file.metadata.get("general.type")
    if kind == "imatrix":
        return "importance matrix"
    if kind == "adapter":
        return "adapter"
    if "general.architecture" not in file.metadata:
        return "other"
    return "model" if tensors else "vocabulary"


def _model(path: Path) -> tuple[Model | None, Oddity | None]:
    """The model that it is; a file that is none is shown nevertheless, with the reason."""
    try:
        return read_local(path), None
    except InvalidFile as e:
        return None, as_oddity(e)


def as_oddity(error: InvalidFile) -> Oddity:
    """What made something no Qwen3, as a remark."""
    text = f"{error.summary}: found {error.found}" + (
        f", expected {error.expected}" if error.expected else ""
    )
    return Oddity(what=text, meaning=error.hint or "qwharf cannot run it")


def context_of(model: Model) -> Context:
    """How long conversations may be."""
    arch = model.architecture
    return Context(
        native_tokens=model.native_context_tokens,
        max_tokens=model.max_context_tokens,
        positions=arch.max_position_embeddings,
        rope_theta=arch.rope_theta,
        yarn_factor=arch.yarn_factor,
        yarn_original_tokens=arch.yarn_original_context_tokens,
    )


def relative_of(model: Model | None) -> str | None:
    """The family's member of that shape."""
    prefix = "shaped like "
    note = model.note if model else ""
    return note.removeprefix(prefix) if note.startswith(prefix) else None


def _metadata(file: GgufFile) -> dict[str, Any]:
    return {k: plain(v) for k, v in file.metadata.items()}


def _generation(metadata: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: metadata.get(f"general.sampling.{key}") for key, name in SAMPLING.items()}
    return {
        name: float(f"{v:.7g}") if isinstance(v, float) else v  # stored as f32
        for name, v in found.items()
        if v is not None
    }


def _of_keys(file: GgufFile) -> Iterator[Oddity]:
    kind = file.metadata.get("general.architecture")
    if f"{kind}.attention.key_length" not in file.metadata:
        yield Oddity(
            what=f"no {kind}.attention.key_length",
            meaning="loaders divide the width by the heads, which is wrong for most Qwen3",
        )
    if "general.file_type" not in file.metadata:
        yield Oddity(
            what="no general.file_type", meaning="the quantisation is told by the commonest type"
        )


def _of_mix(file: GgufFile, tensors: tuple[Tensor, ...], model: Model) -> Iterator[Oddity]:
    if model.path_format is not None:
        weighted = "quantize.imatrix.file" in file.metadata
        yield from oddities.of_mix(
            tensors, model.architecture, model.path_format, weighted=weighted
        )


def _adapter(file: GgufFile, raw: list[GgufTensor], tensors: tuple[Tensor, ...]) -> Adapter:
    alpha = file.metadata.get("adapter.lora.alpha")
    ranks = {t.shape[0] for t in raw if t.name.endswith(".lora_a") and len(t.shape) == 2}
    base = file.metadata.get("general.base_model.0.name")
    return Adapter(
        rank=ranks.pop() if len(ranks) == 1 else None,
        alpha=float(alpha) if isinstance(alpha, int | float) else None,
        base=base if isinstance(base, str) else None,
        modules=tuple(g.name for g in grouping.by_kind(tensors)),
        layers=layers_of(tensors),
        parameters=parameters_of(tensors),
    )


def layers_of(tensors: tuple[Tensor, ...]) -> tuple[int, ...]:
    """The layers that have tensors here."""
    return tuple(sorted({t.layer for t in tensors if t.layer is not None}))


def parameters_of(tensors: tuple[Tensor, ...]) -> int:
    """All elements."""
    import math

    return sum(math.prod(t.shape) for t in tensors)
