"""What weights on disk really are, read from their headers before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts.selection import gguf_quantization
from qwharf.errors import InvalidFile
from qwharf.types import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The format of a checkpoint or ``.gguf``, and its weight files."""

    format: Format
    weights: tuple[Path, ...]


def inspect_folder(folder: Path) -> Inspected:
    """Read the headers of a checkpoint in Hugging Face layout, all weight files included.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the file, what was found and what was expected.
    """
    from qwharf.formats.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder)
    if not checkpoint.tensors:
        raise InvalidFile(str(folder), found="no tensors", expected="a checkpoint with weights")
    return Inspected(format=checkpoint.format, weights=checkpoint.weight_files)


def inspect_gguf(path: Path) -> Inspected:
    """Read the headers of a ``.gguf`` file, or of all parts of a split one.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the file, what was found and what was expected.
    """
    from qwharf.formats.gguf import architecture_from_gguf, read_gguf, split_parts

    parts = split_parts(path)
    first, *_ = [read_gguf(part) for part in parts]
    architecture_from_gguf(first)
    return Inspected(format=format_of_gguf(first.metadata, parts[0]), weights=tuple(parts))


def format_of_gguf(metadata: Mapping[str, object], path: Path) -> Format:
    """The format of a GGUF by its ``general.file_type``, else by its file name.

    Raises:
        InvalidFile: neither tells.
    """
    from qwharf.formats.ggml_types import FILE_TYPES

    number = metadata.get("general.file_type")
    name = next((name for name, id in FILE_TYPES.items() if id == number), None)
    name = name or gguf_quantization(path.name)
    if name is None:
        raise InvalidFile(
            str(path),
            found=f"general.file_type {number!r}",
            expected="a file type of llama.cpp, or a name such as `…-Q8_0.gguf`",
            hint="rename the file so that it ends in its quantisation",
        )
    return Format("gguf", name)
