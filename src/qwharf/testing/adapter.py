"""Synthetic LoRA adapters: the files that PEFT saves, with random matrices that change a lot."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from qwharf.formats.adapter import CONFIG, WEIGHTS
from qwharf.formats.safetensors import SafetensorsWriter
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.types import Architecture

MODULES = ("q_proj", "v_proj", "down_proj")


def write_synthetic_adapter(
    arch: Architecture,
    folder: Path,
    *,
    rank: int = 8,
    alpha: float = 16,
    modules: Collection[str] = MODULES,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write an adapter for a model of the shape ``arch`` into ``folder``, and return that.

    Args:
        arch: the base model.
        folder: made if needed.
        rank: of its matrices.
        alpha: by which, over ``rank``, they are scaled.
        modules: the matrices of each layer that it changes.
        seed: the same seed gives the same bytes.
        **config: more keys of ``adapter_config.json``, or other values.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "base_model_name_or_path": "",
        "bias": "none",
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    } | config
    (folder / CONFIG).write_text(json.dumps(told, indent=2), "utf-8")
    changed = [s for s in checkpoint_tensors(arch) if s.name.split(".")[-2] in modules]
    entries = []
    for spec in changed:
        name = f"base_model.model.{spec.name.removesuffix('.weight')}"
        outputs, inputs = spec.shape
        entries.append((f"{name}.lora_A.weight", "F32", (rank, inputs)))
        entries.append((f"{name}.lora_B.weight", "F32", (outputs, rank)))
    random = np.random.default_rng(seed)
    with SafetensorsWriter(folder / WEIGHTS, entries, {"format": "pt"}) as out:
        for _, _, shape in entries:
            values = random.normal(0, shape[1] ** -0.5, shape)
            out.write(values.astype("<f4").tobytes())
    return folder
