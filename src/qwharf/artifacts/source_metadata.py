"""What a GGUF file says of its model, from what the source says: a checkpoint or another GGUF file.

What depends on the target is added by :func:`qwharf.artifacts.gguf_metadata.file_metadata`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from qwharf.artifacts import gguf_metadata
from qwharf.artifacts.gguf_metadata import Metadata
from qwharf.artifacts.stored import Stored
from qwharf.errors import InvalidFile
from qwharf.formats.checkpoint import Checkpoint
from qwharf.formats.gguf import GgufFile

SPLIT_KEYS = frozenset({"split.no", "split.count", "split.tensors.count"})
HASH = re.compile(r"[0-9a-f]{12,}")
FRONT_MATTER_BYTES = 64 << 10


def source_metadata(stored: Stored, name: str | None = None) -> Metadata:
    """All but what depends on the target; ``name`` replaces what the source calls the model.

    Raises:
        InvalidFile: the tokenizer is missing, damaged or not Qwen's kind, or there is a value that
            cannot be written again.
    """
    if stored.checkpoint is not None:
        return _of_checkpoint(stored.checkpoint, name)
    if stored.gguf is not None:
        return _of_gguf(stored.gguf, name)
    raise ValueError("neither a checkpoint nor a GGUF file")


def _of_checkpoint(checkpoint: Checkpoint, name: str | None) -> Metadata:
    arch, folder = checkpoint.architecture, checkpoint.folder
    return gguf_metadata.model_metadata(
        arch,
        name=name or _name_of(checkpoint),
        license_id=_license_of(folder),
        generation_config=checkpoint.generation_config,
    ) | gguf_metadata.tokenizer_metadata(
        folder, arch, checkpoint.chat_template, checkpoint.generation_config
    )


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


def _of_gguf(file: GgufFile, name: str | None) -> Metadata:
    """Every key as it was, but those that belong to the container."""
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
