"""Small models and what they are when read whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwharf.artifacts.convert import convert
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import Stored, read_stored
from qwharf.formats.names import parse_format
from qwharf.formats.safetensors import SafetensorsWriter, read_safetensors
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DENSE = replace(TINY, num_hidden_layers=2)
MOE = replace(TINY_MOE, num_hidden_layers=1, num_experts=4, moe_intermediate_size=128)


def checkpoint(folder: Path, *, moe: bool = False, **options: Any) -> Path:
    write_synthetic_checkpoint(MOE if moe else DENSE, folder, vocab="tiny", **options)
    return folder


def converted(source: Path, folder: Path, text: str) -> Path:
    format = parse_format(text)
    ending = ".gguf" if format.container == "gguf" else ""
    made = folder / (text.replace(":", "-") + ending)
    convert(source, format, made, threads=1)
    return made


def whole(stored: Stored) -> dict[str, NDArray[np.float32]]:
    """Every matrix at once, as the codecs read it."""
    files = Files()
    try:
        return {n: m.read(files, 0, m.shape[0]) for n, m in stored.matrices.items()}
    finally:
        files.close()


def changed(source: Path, folder: Path, name: str, data: bytes) -> Path:
    """A copy of a checkpoint in which the tensor ``name`` has other bytes."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    file = read_safetensors(source / "model.safetensors")
    entries = [(t.name, t.dtype, t.shape) for t in file.tensors.values()]
    with SafetensorsWriter(folder / "model.safetensors", entries) as out:
        for tensor in file.tensors.values():
            raw = b"".join(file.chunks(tensor.name))
            out.write(data.ljust(len(raw), b"\0") if tensor.name == name else raw)
    return folder


def stored(path: Path) -> Stored:
    return read_stored(path)
