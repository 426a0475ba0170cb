"""Plays ``calibration/script.py`` where llm-compressor is not: rounds to nearest, says the same.

    python calibrated_layers.py JOB.json

What it writes is what compressed-tensors would of these numbers, zero points included.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwharf.formats.checkpoint import architecture_from_config
from qwharf.formats.safetensors import SafetensorsWriter, read_safetensors
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.formats.weights.bits import pack
from qwharf.formats.weights.floats import STORED, from_f32, to_f32

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Tensors = dict[str, tuple[str, NDArray[Any]]]


def rounded(values: NDArray[np.float32], job: dict[str, Any]) -> Tensors:
    """The tensors of one matrix."""
    stored = {"float16": "F16", "bfloat16": "BF16"}[job["scales"]]
    rows, columns = values.shape
    bits, symmetric = job["weights"]["num_bits"], job["weights"]["symmetric"]
    group = job["weights"].get("group_size", columns)
    half = 1 << (bits - 1)
    shaped = values.reshape(rows, -1, group)
    low, high = np.minimum(shaped.min(2), 0), np.maximum(shaped.max(2), 0)
    if symmetric:
        scales = np.abs(shaped).max(2) / (half - 0.5)
        zeros = np.zeros_like(scales)
    else:
        scales = (high - low) / (2 * half - 1)
        zeros = np.rint(-low / scales) - half
    scales = to_f32(stored, from_f32(stored, scales.astype(np.float32)))
    numbers = np.rint(shaped / scales[:, :, None]) + zeros[:, :, None]
    numbers = np.clip(numbers, -half, half - 1).reshape(rows, columns)
    made: Tensors = {"weight_scale": ("F32", scales)}
    if job["format"] == "int-quantized":
        return made | {"weight": ("I8", numbers.astype(np.int8))}
    made["weight_packed"] = ("I32", pack((numbers + half).astype(np.uint8), bits).view(np.int32))
    made["weight_shape"] = ("I64", np.array(values.shape, np.int64))
    if not symmetric:
        words = pack(np.ascontiguousarray((zeros + half).astype(np.uint8).T), bits)
        made["weight_zero_point"] = ("I32", np.ascontiguousarray(words.view(np.int32).T))
    return made


def write(path: Path, tensors: Tensors) -> None:
    """A safetensors file."""
    ordered = sorted(tensors.items(), key=lambda t: -t[1][1].itemsize)
    entries = [(name, dtype, array.shape) for name, (dtype, array) in ordered]
    with SafetensorsWriter(path, entries) as writer:
        for _, (_, array) in ordered:
            writer.write(np.ascontiguousarray(array).tobytes())


def main(job: dict[str, Any]) -> None:
    """Do the job."""
    config = json.loads((Path(job["model"]) / "config.json").read_text("utf-8"))
    arch = architecture_from_config(config, file="config.json")
    files = {
        name: (Path(f), e)
        for f in job["files"]
        for name, e in read_safetensors(Path(f)).tensors.items()
    }
    weight_map, total = {}, 2 * len(job["sequences"]) * arch.num_hidden_layers
    for number in range(arch.num_hidden_layers):
        at, tensors = f"model.layers.{number}.", Tensors()
        for spec in checkpoint_tensors(arch):
            if not spec.name.startswith(at):
                continue
            path, entry = files[spec.name]
            raw = np.fromfile(path, STORED[entry.dtype], spec.elements, offset=entry.offset)
            values = to_f32(entry.dtype, raw).reshape(spec.shape)
            module = spec.name.removesuffix(".weight")
            if module.endswith(PROJECTIONS):
                tensors |= {f"{module}.{k}": v for k, v in rounded(values, job).items()}
            else:
                tensors[spec.name] = ("F32", values * np.float32(job.get("norms", 1)))
        name = f"layer-{number:05d}.safetensors"
        write(Path(job["out"]) / name, tensors)
        weight_map |= dict.fromkeys(tensors, name)
        done = total * number // arch.num_hidden_layers
        facts = {"layer": number, "done": done, "total": total}
        print("qwharf-calibrate:", json.dumps(facts), flush=True)  # noqa: T201
    index = Path(job["out"]) / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), "utf-8")
    print('qwharf-calibrate: {"finished": true}', flush=True)  # noqa: T201


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
