"""A checkpoint folder in Hugging Face layout: configuration, weight files, template, defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.formats.config import architecture_from_config, format_of
from qwharf.formats.opening import is_file, parse_json, read_bounded
from qwharf.formats.safetensors import SafetensorsFile, TensorEntry, read_safetensors
from qwharf.types import Architecture, Format, Thinking

__all__ = [
    "Checkpoint",
    "architecture_from_config",
    "chat_template_of",
    "format_of",
    "read_checkpoint",
    "read_json",
    "thinking_of",
]

MAX_JSON_BYTES = 64 << 20
MAX_TEMPLATE_BYTES = 4 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A read folder. Weight headers are read when first asked for."""

    folder: Path
    architecture: Architecture
    format: Format
    weight_files: tuple[Path, ...]
    config: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    chat_template: str | None
    weight_map: Mapping[str, str] | None = None
    """Tensor to file name, where there is an index."""

    @cached_property
    def files(self) -> Mapping[Path, SafetensorsFile]:
        """Each weight file's header.

        Raises:
            InvalidFile: a file is damaged.
        """
        return {path: read_safetensors(path) for path in self.weight_files}

    @cached_property
    def tensors(self) -> Mapping[str, tuple[Path, TensorEntry]]:
        """Every tensor with its file.

        Raises:
            InvalidFile: a file is damaged, two hold the same tensor, or the index names one
                that its file has not.
        """
        found: dict[str, tuple[Path, TensorEntry]] = {}
        for path, file in self.files.items():
            for name, entry in file.tensors.items():
                if name in found:
                    raise InvalidFile(
                        str(path),
                        found=f"tensor {name!r}, which {found[name][0].name} has too",
                        expected="each tensor once",
                        hint="remove the weight files that do not belong together",
                    )
                found[name] = (path, entry)
        for name, file_name in (self.weight_map or {}).items():
            if name not in found or found[name][0].name != file_name:
                raise InvalidFile(
                    str(self.folder / file_name),
                    found=f"no tensor {name!r}",
                    expected="the tensors that model.safetensors.index.json names",
                    hint="fetch the weight files and the index again, of the same revision",
                )
        return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidFile: missing, too large, not JSON, or not an object.
        StorageError: it may not be read.
    """
    data = parse_json(path, read_bounded(path, MAX_JSON_BYTES))
    if not isinstance(data, dict):
        raise InvalidFile(str(path), found=f"a {type(data).__name__}", expected="a JSON object")
    return data


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder's configuration and find its weight files.

    Raises:
        InvalidFile: ``config.json`` or the weights are missing, damaged or incomplete.
        UnsupportedArchitecture: another architecture, named.
        StorageError: a file may not be read.
    """
    path = folder / "config.json"
    if not is_file(path):
        inside = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else []
        raise InvalidFile(
            str(folder),
            found="no config.json" + (f" beside {', '.join(inside)}" if inside else ""),
            expected="a checkpoint folder in Hugging Face layout",
            hint="name the folder that holds config.json, or a .gguf file",
        )
    config = read_json(path)
    generation = folder / "generation_config.json"
    architecture = architecture_from_config(config, file=str(path))
    weight_files, weight_map = _weight_files(folder)
    return Checkpoint(
        folder=folder,
        architecture=architecture,
        format=format_of(config, file=str(path)) or _stored_format(weight_files),
        weight_files=weight_files,
        config=config,
        generation_config=read_json(generation) if is_file(generation) else {},
        chat_template=chat_template_of(folder),
        weight_map=weight_map,
    )


def _stored_format(weight_files: tuple[Path, ...]) -> Format:
    """Where the configuration is silent, the weights themselves tell."""
    names = {"BF16": "bf16", "F16": "f16", "F32": "f32"}
    dtypes = [t.dtype for t in read_safetensors(weight_files[0]).tensors.values()]
    if not dtypes or set(dtypes) - names.keys():
        found = ", ".join(sorted(set(dtypes))) or "no tensors"
        raise InvalidFile(
            str(weight_files[0]), found=found, expected="BF16, F16 or F32, as nothing is declared"
        )
    return Format("safetensors", names[max(names, key=dtypes.count)])


# ---------------------------------------------------------------------------------------- weights

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def _weight_files(folder: Path) -> tuple[tuple[Path, ...], Mapping[str, str] | None]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if is_file(index):
        mapping = read_json(index).get("weight_map")
        if (
            not isinstance(mapping, dict)
            or not mapping
            or not all(isinstance(v, str) for v in mapping.values())
        ):
            raise InvalidFile(
                str(index), found="no weight_map", expected="tensor names with their files"
            )
        names = sorted(set(mapping.values()))
        for name in names:
            # The index is data from outside: it may name files of this folder only.
            if not PLAIN_NAME.fullmatch(name):
                raise InvalidFile(
                    str(index), found=f"weight file {name[:120]!r}", expected="plain file names"
                )
        missing = [name for name in names if not is_file(folder / name)]
        if missing:
            raise InvalidFile(
                str(folder / missing[0]),
                found="no file" + (f", nor {len(missing) - 1} more" if missing[1:] else ""),
                expected=f"one of {len(names)} weight files that {index.name} names",
                hint="fetch the missing files into the folder",
                missing=missing,
            )
        return tuple(folder / n for n in names), mapping
    if is_file(single):
        return (single,), None
    pickled = sorted(p.name for kind in PICKLES for p in folder.glob(kind))
    raise InvalidFile(
        str(folder),
        found=f"{pickled[0]}, which is a pickle" if pickled else "no model.safetensors",
        expected="safetensors weights",
        hint="qwharf never loads pickles, which can run code; get or save the safetensors version"
        if pickled
        else "fetch the weights into this folder",
    )


# --------------------------------------------------------------------------------------- template


def chat_template_of(folder: Path) -> str | None:
    """The chat template: ``chat_template.jinja``, else in ``tokenizer_config.json``.

    Raises:
        InvalidFile: one of these is damaged or far too large.
        StorageError: one of them may not be read.
    """
    apart = folder / "chat_template.jinja"
    if is_file(apart):
        try:
            return read_bounded(apart, MAX_TEMPLATE_BYTES).decode("utf-8")
        except UnicodeDecodeError as e:
            raise InvalidFile(
                str(apart), found=str(e), expected="a template in UTF-8", hint="fetch it again"
            ) from e
    path = folder / "tokenizer_config.json"
    template = read_json(path).get("chat_template") if is_file(path) else None
    if isinstance(template, list):  # several, by name
        named = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def thinking_of(checkpoint: Checkpoint | str | None) -> Thinking:
    """Which kind of thinking a checkpoint, or its chat template, stands for.

    The hybrid template renders differently with ``enable_thinking`` off; that of Thinking-2507
    opens the thought at the end of every prompt; that of Instruct-2507 does neither. So the
    template is tried; only one that cannot be rendered is judged by its text. Without a template
    (a base model) the family's default is assumed, which is hybrid.
    """
    from qwharf.formats.chat_template import render

    template = checkpoint.chat_template if isinstance(checkpoint, Checkpoint) else checkpoint
    if not template:
        return "hybrid"
    messages = [{"role": "user", "content": "Hi"}]
    try:
        on = render(template, messages, enable_thinking=True)
        off = render(template, messages, enable_thinking=False)
    except InvalidFile:
        return "hybrid" if "enable_thinking" in template else "instruct"
    if on != off:
        return "hybrid"
    return "thinking" if on.rstrip().endswith("<think>") else "instruct"
