"""Models and damaged copies of them to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwharf.artifacts.convert import convert
from qwharf.formats.gguf import read_gguf
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.safetensors import SafetensorsWriter, read_safetensors
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Format

DENSE = replace(TINY, num_hidden_layers=2)
MOE = replace(TINY_MOE, num_hidden_layers=1, num_experts=4, moe_intermediate_size=128)

Metadata = dict[str, tuple[str, Any]]
Tensors = list[tuple[str, tuple[int, ...], Any]]


def checkpoint(folder: Path, *, moe: bool = False, **options: Any) -> Path:
    write_synthetic_checkpoint(MOE if moe else DENSE, folder, vocab="tiny", **options)
    return folder


def gguf_of(source: Path, path: Path, quantization: str = "q4_k_m") -> Path:
    convert(source, Format("gguf", quantization), path, threads=1)
    return path


def edited_json(folder: Path, file: str, **changes: Any) -> Path:
    """``folder`` with keys of a JSON file set, or removed where ``None``."""
    path = folder / file
    data = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}), "utf-8")
    return folder


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def edited_gguf(
    source: Path, target: Path, change: Callable[[Metadata, Tensors], None] = lambda m, t: None
) -> Path:
    """A file with the metadata and the table of ``source`` after ``change``; its data are zeros."""
    file = read_gguf(source, keep_arrays=True)
    metadata = {k: (file.kinds[k], v) for k, v in file.metadata.items()}
    tensors: Tensors = [(t.name, t.shape, t.type) for t in file.tensors.values()]
    change(metadata, tensors)
    header = gguf_header(metadata, tensors)
    target.write_bytes(header.data + bytes(header.size_bytes - len(header.data)))
    return target


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """``folder`` with another set of tensors, all zeros: name to (dtype, shape)."""
    path = folder / "model.safetensors"
    tensors: dict[str, Any] = {
        e.name: (e.dtype, e.shape) for e in read_safetensors(path).tensors.values()
    }
    change(tensors)
    safetensors(path, tensors)
    return folder


def safetensors(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    entries = [(name, dtype, shape) for name, (dtype, shape) in tensors.items()]
    with SafetensorsWriter(path, entries) as file:
        file.write(bytes(file._left))
    return path
