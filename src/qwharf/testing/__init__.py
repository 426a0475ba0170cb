"""For tests and measurements: synthetic checkpoints and adapters of any Qwen3 shape."""

from qwharf.testing.adapter import write_synthetic_adapter
from qwharf.testing.checkpoint import (
    TINY,
    TINY_MOE,
    Written,
    config_json,
    generation_config_json,
    write_synthetic_checkpoint,
)
from qwharf.testing.parts import write_parts

__all__ = [
    "TINY",
    "TINY_MOE",
    "Written",
    "config_json",
    "generation_config_json",
    "write_parts",
    "write_synthetic_adapter",
    "write_synthetic_checkpoint",
]
