"""Models for the tests of the forward pass: the pocket model, and two of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qwharf import catalog
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture

POCKET = Path(catalog.__file__).parent / "pocket"
SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "head_dim": 32}
DENSE = replace(TINY, **SMALL, intermediate_size=96)
MOE = replace(TINY_MOE, **SMALL, num_experts=6, moe_intermediate_size=96)


def random_model(arch: Architecture, folder: Path) -> Path:
    """A checkpoint of random float32, so that routing hangs on no rounding."""
    write_synthetic_checkpoint(arch, folder, seed=3, vocab="tiny", dtype="f32")
    return folder


TEXT = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    "The capital of France is Paris.<|im_end|>\n"
    "A short text, read in small pieces, so that what llama.cpp collects of it is small, too.\n"
) * 2
"""What ``llama-imatrix`` was given for the recorded matrices."""
CHUNK = 32
