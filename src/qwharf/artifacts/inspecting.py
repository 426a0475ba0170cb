"""What weights on disk really are, read from their headers before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts.selection import SPLIT, gguf_quantization
from qwharf.errors import InvalidFile
from qwharf.types import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """The format of a checkpoint or ``.gguf``, and its weight files."""

    format: Format
    weights: tuple[Path, ...]


def inspect_folder(folder: Path) -> Inspected:
    """Read the headers of a checkpoint in Hugging Face layout.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the file, what was found and what was expected.
    """
    from qwharf.formats.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder)
    return Inspected(format=checkpoint.format, weights=tuple(map(Path, checkpoint.weight_files)))


def inspect_gguf(path: Path) -> Inspected:
    """Read the headers of a ``.gguf`` file, or of all parts of a split one.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the file, what was found and what was expected.
    """
    from qwharf.formats.gguf import architecture_from_gguf, read_gguf

    parts = gguf_parts(path)
    file = read_gguf(parts[0])
    architecture_from_gguf(file)
    return Inspected(format=format_of_gguf(file.metadata, parts[0]), weights=tuple(parts))


def gguf_parts(path: Path) -> Sequence[Path]:
    """All parts of a split file, of which ``path`` is any one; else ``path`` alone.

    Raises:
        InvalidFile: a part is missing.
    """
    match = SPLIT.fullmatch(path.name)
    if match is None:
        return [path]
    count, digits = int(match["count"]), len(match["prefix"])
    suffix = path.name[digits + 6 :]
    parts = [
        path.with_name(f"{match['prefix']}-{number:05d}{suffix}") for number in range(1, count + 1)
    ]
    for part in parts:
        if not part.exists():
            raise InvalidFile(
                str(part),
                found="no file",
                expected=f"one of {count} parts of {match['prefix']}",
                hint="fetch the missing part into the same folder",
            )
    return parts


FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k",
    11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s",
    17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs",
    23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m",
    30: "iq4_xs", 31: "iq1_m", 32: "bf16", 38: "mxfp4_moe",
}  # fmt: skip
"""``general.file_type`` of GGUF (llama.cpp's ``llama_ftype``) -> quantisation."""


def format_of_gguf(metadata: Mapping[str, object], path: Path) -> Format:
    """The format of a GGUF by its ``general.file_type``, else by its file name.

    Raises:
        InvalidFile: neither tells.
    """
    number = metadata.get("general.file_type")
    name = FILE_TYPES.get(number) if isinstance(number, int) else None
    name = name or gguf_quantization(path.name)
    if name is None:
        raise InvalidFile(
            str(path),
            found=f"general.file_type {number!r}",
            expected="a file type of llama.cpp, or a name such as `…-Q8_0.gguf`",
            hint="rename the file so that it ends in its quantisation",
        )
    return Format("gguf", name)
