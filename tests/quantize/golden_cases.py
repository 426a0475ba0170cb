"""The seeded checkpoints behind the recorded hashes, and how tensors are hashed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwharf.formats.gguf import GgufFile
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture

SEED = 20250429
DENSE = replace(
    TINY,
    num_hidden_layers=9,
    num_attention_heads=4,
    num_key_value_heads=1,
    intermediate_size=256,
)
MOE = replace(
    TINY_MOE, num_hidden_layers=9, num_attention_heads=4, num_key_value_heads=2, num_experts=4
)
ODD = replace(TINY, num_hidden_layers=2, hidden_size=192, intermediate_size=272, head_dim=48)
"""Rows that suit neither 256- nor, some of them, 32-element blocks."""

CASES: dict[str, Architecture] = {"dense": DENSE, "moe": MOE, "odd": ODD}


def checkpoint(case: str, folder: Path) -> Path:
    write_synthetic_checkpoint(
        CASES[case], folder / f"Qwen3-{case}", seed=SEED, vocab="tiny", chat_template="{{ 1 }}"
    )
    return folder / f"Qwen3-{case}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor_hashes(file: GgufFile) -> dict[str, Any]:
    """Per tensor its type and the first digits of the sha256 of its bytes."""
    out: dict[str, Any] = {}
    for name, tensor in file.tensors.items():
        digest = hashlib.sha256()
        for piece in file.chunks(name):
            digest.update(piece)
        out[name] = [tensor.type.name, digest.hexdigest()[:16]]
    return out
