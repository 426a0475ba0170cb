"""A LoRA adapter as a GGUF file, which is how llama.cpp takes one: read, and made of PEFT's.

Each matrix ``blk.0.attn_q.weight`` that it changes has two, ``….lora_a`` of [rank, in] and
``….lora_b`` of [out, rank] in torch's order; those of experts are stacked. The engine computes with
W + alpha / rank * B A. Sources: llama.cpp ``src/llama-adapter.cpp``, ``convert_lora_to_gguf.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from qwharf.errors import InvalidFile
from qwharf.formats.adapter import MERGE, WEIGHTS, Adapter
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf_reader import read_gguf
from qwharf.formats.gguf_writer import GgufWriter, Metadata
from qwharf.formats.safetensors import SafetensorsFile, TensorEntry, read_safetensors
from qwharf.formats.tensors import gguf_name, gguf_tensors
from qwharf.types import Architecture

ARCHITECTURES = {"qwen3": "qwen3", "qwen3_moe": "qwen3moe"}
TYPES = frozenset({"F32", "F16", "BF16", "Q8_0"})
"""What converters write; others were not tried."""
A, B = ".lora_a", ".lora_b"
_ALORA = "adapter.alora.invocation_tokens"


def check_gguf_adapter(path: Path, arch: Architecture) -> None:
    """The file is a LoRA adapter that llama.cpp can put on a model of the shape ``arch``.

    Raises:
        InvalidFile: it is not.
        StorageError: it may not be read.
    """
    file = read_gguf(path)
    told = {
        key: file.metadata.get(key)
        for key in ("general.type", "general.architecture", "adapter.type")
    }
    wanted = ("adapter", ARCHITECTURES[arch.model_type], "lora")
    if tuple(told.values()) != wanted:
        found = ", ".join(f"{k} {v!r:.40}" for k, v in told.items())
        raise _wrong(path, found, ", ".join(wanted), "give a LoRA adapter of this very model")
    alpha = file.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not (math.isfinite(alpha) and alpha > 0):
        raise _wrong(
            path, f"adapter.lora.alpha = {alpha!r:.40}", "a positive number", "convert again"
        )
    if _ALORA in file.metadata:
        raise _wrong(path, _ALORA, "an adapter that is always on", MERGE)
    known = {spec.name: spec.shape for spec in gguf_tensors(arch) if len(spec.shape) > 1}
    for name, tensor in file.tensors.items():
        matrix, half, other = _half(name)
        shape = known.get(matrix)
        if shape is None or matrix + other not in file.tensors:
            raise _wrong(
                path, f"a tensor {name}", f"pairs of {A} and {B} for this model's matrices", MERGE
            )
        rank = file.tensors[matrix + A].shape[-2:-1] or (0,)
        *stack, outputs, inputs = shape
        due = (*stack, *rank, inputs) if half == A else (*stack, outputs, *rank)
        if tensor.shape != due or tensor.type.name not in TYPES:
            raise _wrong(
                path,
                f"{name} {tensor.type.name} {list(tensor.shape)}",
                f"{list(due)} in {', '.join(sorted(TYPES))}",
                "use the adapter of this very model",
            )
    if not file.tensors:
        raise _wrong(path, "no tensors", "the adapter's matrices", "convert it again")


def _half(name: str) -> tuple[str, str, str]:
    """The matrix that a tensor belongs to, which half it is, and which the other."""
    for half, other in ((A, B), (B, A)):
        if name.endswith(half):
            return name.removesuffix(half), half, other
    return "", "", ""


def write_gguf_adapter(adapter: Adapter, arch: Architecture, path: Path) -> None:
    """Write ``adapter`` to ``path`` for llama.cpp, every number as it is, in float32.

    Raises:
        InvalidFile: it changes experts one by one, or has weights that are not finite.
        StorageError: no room, or no permission.
    """
    source = adapter.folder / WEIGHTS
    single = next((n for n, pair in adapter.pairs.items() if pair.role == "expert"), None)
    if single is not None:
        raise _wrong(
            source,
            f"an addition to {single}",
            "none to single experts, which a GGUF file keeps stacked",
            MERGE,
        )
    named = {gguf_name(name): pair for name, pair in adapter.pairs.items()}
    entries: list[tuple[str, TensorEntry]] = []
    for spec in gguf_tensors(arch):
        if (pair := named.get(spec.name)) is not None:
            entries += [(spec.name + A, pair.a), (spec.name + B, pair.b)]
    f32 = GGML_TYPES["F32"]
    file = read_safetensors(source)
    with GgufWriter(
        path, _metadata(adapter, arch), [(name, entry.shape, f32) for name, entry in entries]
    ) as out:
        for _, entry in entries:
            for piece in _as_f32(file, entry):
                out.write(piece)


def _metadata(adapter: Adapter, arch: Architecture) -> Metadata:
    # llama.cpp divides by the rank; with rsLoRA the root of it was meant.
    alpha = adapter.scale * adapter.rank
    return {
        "general.architecture": ("str", ARCHITECTURES[arch.model_type]),
        "general.type": ("str", "adapter"),
        "adapter.type": ("str", "lora"),
        "general.name": ("str", adapter.folder.resolve().name),
        "adapter.lora.alpha": ("f32", alpha),
        "general.file_type": ("u32", 0),
    }


def _as_f32(file: SafetensorsFile, entry: TensorEntry) -> Iterator[bytes]:
    """A tensor's numbers, some at a time.

    Raises:
        InvalidFile: some are not finite.
    """
    import numpy as np

    from qwharf.formats.weights.floats import to_f32

    stored = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[entry.dtype]
    for raw in file.chunks(entry.name):
        values = to_f32(entry.dtype, np.frombuffer(raw, stored))
        if not np.isfinite(values).all():
            raise _wrong(file.path, f"{entry.name}: not finite", "finite weights", "train it again")
        yield values.tobytes()


def _wrong(path: Path, found: str, expected: str, hint: str) -> InvalidFile:
    return InvalidFile(str(path), found=found[:200], expected=expected, hint=hint)
