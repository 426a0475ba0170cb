"""The models of the matrix tests, and their other formats, each made once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qwharf import catalog
from qwharf.artifacts.convert import convert
from qwharf.formats.safetensors import SafetensorsWriter, read_safetensors
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.testing import config_json
from qwharf.testing.vocabulary import to_json
from qwharf.types import Architecture, Format

BF16 = Format("safetensors", "bf16")
POCKET = Path(catalog.__file__).parent / "pocket"
EXPERTS = 4


def made_as(model: Path, target: Format) -> Path:
    """The model in another format, made once."""
    if target == BF16:
        return model
    suffix = ".gguf" if target.container == "gguf" else ""
    out = model.parent / f"{target.container}-{target.quantization}{suffix}"
    if not out.exists():
        convert(model, target, out)
    return out


def pocket(folder: Path) -> Path:
    """The pocket model, beside which its other formats find room."""
    return shutil.copytree(POCKET, folder)


def pocket_moe(folder: Path) -> Path:
    """The pocket model's sibling, a mixture of experts that answers as it does.

    Every expert is pocket's feed-forward part with its hidden units in an order of their own: to
    whichever two the random router sends a token, the result is the same. Matrices of two experts
    mixed up, or a router whose shares do not add up to one, make nonsense.
    """
    file = read_safetensors(POCKET / "model.safetensors")
    dense = catalog.find("pocket").architecture
    arch = replace(
        dense,
        model_type="qwen3_moe",
        num_experts=EXPERTS,
        num_experts_per_tok=2,
        moe_intermediate_size=dense.intermediate_size,
    )
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    (folder / "config.json").write_text(to_json(config_json(arch)), "utf-8")
    specs = checkpoint_tensors(arch, lm_head="lm_head.weight" in file.tensors)
    entries = [(s.name, "BF16", s.shape) for s in specs]
    with SafetensorsWriter(folder / "model.safetensors", entries, {"format": "pt"}) as writer:
        for spec in specs:
            if spec.role == "router":
                made = _bf16(np.random.default_rng(len(spec.name)).normal(0, 0.5, spec.shape))
            else:
                made = _of_pocket(file, spec.name, arch)
            assert made.shape == spec.shape, spec.name
            writer.write(np.ascontiguousarray(made).data.cast("B"))
    return folder


def _of_pocket(file: Any, name: str, arch: Architecture) -> Any:
    """The bytes of a tensor as 16-bit words; an expert's with its hidden units reordered."""
    before, expert, after = name.partition("mlp.experts.")
    number, _, kind = after.partition(".")
    origin = f"{before}mlp.{kind}" if expert else name
    raw = b"".join(file.chunks(origin))
    words = np.frombuffer(raw, "<u2").reshape(file.tensors[origin].shape)
    if not expert:
        return words
    order = np.random.default_rng(int(number)).permutation(arch.moe_intermediate_size)
    return words[:, order] if kind.startswith("down_proj") else words[order]


def _bf16(values: Any) -> Any:
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
