"""Inspect a checkpoint folder (safetensors, MLX), an adapter's folder, or one weight file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from qwharf.catalog.local import read_local
from qwharf.errors import InvalidFile
from qwharf.formats.checkpoint import Checkpoint, read_checkpoint, read_json
from qwharf.formats.opening import is_file
from qwharf.formats.safetensors import SafetensorsFile, TensorEntry, read_safetensors
from qwharf.formats.tensors import active_parameter_count, checkpoint_tensors, parameter_count
from qwharf.inspection import grouping, oddities, vocabulary
from qwharf.inspection.gguf_file import (
    as_oddity,
    context_of,
    layers_of,
    parameters_of,
    relative_of,
)
from qwharf.inspection.kinds import module_of, unstacked
from qwharf.inspection.needs import needs_of
from qwharf.inspection.report import Adapter, File, Inspection, Oddity, Tensor
from qwharf.inspection.templates import recognise
from qwharf.inspection.texts import plain

FLOATS = ("BF16", "F16", "F32")
Tensors = Mapping[str, tuple[Path, TensorEntry]]


def inspect_folder(folder: Path, name: str | None = None) -> Inspection:
    """Read the configuration and every weight file's header.

    Raises:
        InvalidFile: a file is damaged, or the folder holds no weights.
        StorageError: a file may not be read.
    """
    if is_file(folder / "adapter_config.json"):
        return _adapter(folder, name)
    if not is_file(folder / "config.json"):
        loose = sorted(folder.glob("*.safetensors"))
        if loose:
            return _weights(folder, loose, name)
    try:
        checkpoint = read_checkpoint(folder)
    except InvalidFile as e:
        weights = _weight_files(folder)
        if not weights or not is_file(folder / "config.json"):
            raise
        # Not a Qwen3, or of an unknown kind: what there is can be shown all the same.
        return _weights(folder, weights, name, as_oddity(e))
    return _checkpoint(checkpoint, name)


def inspect_safetensors(path: Path, name: str | None = None) -> Inspection:
    """Read one file's header.

    Raises:
        InvalidFile: it is damaged.
    """
    found = _weights(path.parent, [path], name or path.name)
    return found


def _checkpoint(checkpoint: Checkpoint, name: str | None) -> Inspection:
    folder, arch = checkpoint.folder, checkpoint.architecture
    model = read_local(folder)
    stored, repeated = _tensors(checkpoint.files)
    tensors = grouping.of_safetensors(stored)
    tied = arch.tie_word_embeddings
    loaded = sum(t.size_bytes for t in tensors if not (tied and t.kind == "output"))
    words = vocabulary.of_folder(folder, checkpoint.config, arch.vocab_size)
    template = checkpoint.chat_template
    seen = None if template is None else recognise(template)
    context = context_of(model)
    found = [
        *repeated,
        *_of_index(checkpoint, stored),
        *oddities.of_names(
            _logical(stored, arch.num_experts),
            checkpoint_tensors(arch, lm_head=not tied),
            tied=tied,
            head="lm_head.weight",
        ),
        *oddities.of_vocabulary(words, arch.vocab_size),
        *oddities.of_template(seen),
        *oddities.of_generation(
            checkpoint.generation_config, model.sampling, container="safetensors"
        ),
        *oddities.of_context(context),
        *_of_pickles(folder),
    ]
    return Inspection(
        path=folder,
        what="model",
        container=checkpoint.format.container,
        format=checkpoint.format,
        name=name or folder.resolve().name,
        relative=relative_of(model),
        architecture=arch,
        parameters=parameter_count(arch),
        active_parameters=active_parameter_count(arch),
        size_bytes=sum(t.size_bytes for t in tensors),
        bits_per_weight=grouping.bits_per_weight(loaded, parameter_count(arch)),
        files=_files(checkpoint.files),
        context=context,
        thinking=model.thinking if seen else None,
        by_type=grouping.by_type(tensors),
        by_kind=grouping.by_kind(tensors, arch),
        metadata=plain(checkpoint.config),
        vocabulary=words,
        template=seen,
        generation=plain(checkpoint.generation_config),
        recommended=model.sampling,
        needs=needs_of(arch, context, loaded, llama_cpp=False),
        oddities=tuple(found),
        tensors=tensors,
    )


def _weights(
    folder: Path, paths: list[Path], name: str | None, problem: Oddity | None = None
) -> Inspection:
    """Tensors without a configuration that qwharf understands."""
    files = {path: read_safetensors(path) for path in paths}
    stored, found = _tensors(files)
    tensors = grouping.of_safetensors(stored)
    if problem is not None:
        found.insert(0, problem)
    elif is_file(folder / "config.json"):
        found.append(
            Oddity(
                what=f"one weight file of the checkpoint {folder.resolve().name}",
                meaning="inspect the folder to see it whole",
            )
        )
    lora = any(".lora_" in name for name in stored)
    config = folder / "config.json"
    return Inspection(
        path=paths[0] if len(paths) == 1 and problem is None else folder,
        what="adapter" if lora else "weights",
        container=_container(files),
        name=name or folder.resolve().name,
        size_bytes=sum(t.size_bytes for t in tensors),
        files=_files(files),
        by_type=grouping.by_type(tensors),
        by_kind=grouping.by_kind(tensors),
        metadata=plain(read_json(config) if problem and is_file(config) else _headers(files)),
        adapter=_adapter_facts(tensors, {}) if lora else None,
        oddities=tuple(found),
        tensors=tensors,
    )


# ---------------------------------------------------------------------------------------- adapter


def _adapter(folder: Path, name: str | None) -> Inspection:
    config = read_json(folder / "adapter_config.json")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InvalidFile(
            str(folder),
            found="adapter_config.json, but no .safetensors",
            expected="adapter_model.safetensors",
            hint="fetch the adapter's weights too; qwharf never loads pickles",
        )
    files = {path: read_safetensors(path) for path in paths}
    stored, found = _tensors(files)
    tensors = grouping.of_safetensors(stored)
    kind = config.get("peft_type")
    if kind != "LORA":
        found.append(Oddity(what=f"peft_type {kind!r}", meaning="qwharf and engines take LoRA"))
    return Inspection(
        path=folder,
        what="adapter",
        container="safetensors",
        name=name or folder.resolve().name,
        size_bytes=sum(t.size_bytes for t in tensors),
        files=_files(files),
        by_type=grouping.by_type(tensors),
        by_kind=grouping.by_kind(tensors),
        metadata=plain(config),
        adapter=_adapter_facts(tensors, config),
        oddities=tuple(found),
        tensors=tensors,
    )


def _adapter_facts(tensors: tuple[Tensor, ...], config: Mapping[str, Any]) -> Adapter:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    base = config.get("base_model_name_or_path")
    down = {t.shape[0] for t in tensors if ".lora_A" in t.name and len(t.shape) == 2}
    if not isinstance(rank, int):
        rank = down.pop() if len(down) == 1 else None
    return Adapter(
        rank=rank,
        alpha=float(alpha) if isinstance(alpha, int | float) else None,
        base=base if isinstance(base, str) else None,
        modules=tuple(g.name for g in grouping.by_kind(tensors)),
        layers=layers_of(tensors),
        parameters=parameters_of(tensors),
    )


# ----------------------------------------------------------------------------------------- inside


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _tensors(files: Mapping[Path, SafetensorsFile]) -> tuple[Tensors, list[Oddity]]:
    """Every tensor once, and a remark on those that come twice."""
    found: dict[str, tuple[Path, TensorEntry]] = {}
    twice = []
    for path, file in files.items():
        for name, entry in file.tensors.items():
            if name in found:
                twice.append(f"{name} in {found[name][0].name} and {path.name}")
            found.setdefault(name, (path, entry))
    remarks = [
        Oddity(
            what=f"tensors that come twice: {oddities.some(twice)}",
            meaning="the weight files do not belong together",
        )
    ]
    return found, remarks if twice else []


def _files(files: Mapping[Path, SafetensorsFile]) -> tuple[File, ...]:
    return tuple(
        File(name=path.name, size_bytes=path.stat().st_size, tensors=len(file.tensors))
        for path, file in files.items()
    )


def _headers(files: Mapping[Path, SafetensorsFile]) -> dict[str, Any]:
    return {k: v for file in files.values() for k, v in file.metadata.items()}


def _container(files: Mapping[Path, SafetensorsFile]) -> Literal["safetensors", "mlx"]:
    return "mlx" if _headers(files).get("format") == "mlx" else "safetensors"


def _logical(stored: Tensors, experts: int) -> dict[str, tuple[int, ...]]:
    """The model's tensors by name, however they are stored; ``()`` where the shape is packed."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (_, entry) in stored.items():
        module = module_of(name)
        names = [f"{each}.weight" for each in unstacked(module, experts)]
        plain_shape = entry.shape if entry.dtype in FLOATS and names == [name] else ()
        for each in names:
            found[each] = found.get(each) or plain_shape
    return found


def _of_index(checkpoint: Checkpoint, stored: Tensors) -> Iterator[Oddity]:
    """Where model.safetensors.index.json and the files disagree."""
    index = checkpoint.weight_map
    if index is None:
        return
    wrong = [n for n, file in index.items() if n not in stored or stored[n][0].name != file]
    if wrong:
        yield Oddity(
            what=f"{len(wrong):,} tensors are not where the index says: {oddities.some(wrong)}",
            meaning="loaders fail; fetch index and weight files of the same revision",
        )
    unlisted = [n for n in stored if n not in index]
    if unlisted:
        yield Oddity(
            what=f"{len(unlisted):,} tensors that the index does not name: "
            + oddities.some(unlisted),
            meaning="loaders that follow the index never read them",
        )


def _of_pickles(folder: Path) -> Iterator[Oddity]:
    pickled = sorted(p.name for kind in ("*.bin", "*.pt", "*.pth") for p in folder.glob(kind))
    if pickled:
        yield Oddity(
            what=f"pickles beside the weights: {oddities.some(pickled)}",
            meaning="qwharf never loads them; they can run code",
        )
