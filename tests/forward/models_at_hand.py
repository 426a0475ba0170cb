"""Models for the tests of the forward pass: the pocket model, and a mixture of experts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qwharf import catalog
from qwharf.testing import TINY_MOE, write_synthetic_checkpoint

POCKET = Path(catalog.__file__).parent / "pocket"
MOE = replace(TINY_MOE, num_hidden_layers=2, num_experts=6, num_experts_per_tok=2)


def mixture(folder: Path) -> Path:
    """A checkpoint of random float32, so that routing hangs on no rounding."""
    write_synthetic_checkpoint(MOE, folder, seed=3, vocab="tiny", dtype="f32")
    return folder
