"""One comparison: a library's bytes against the reference's, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.quantize import ggml
from qwharf.quantize.kernels import TYPES, Native

from .distributions import F32

CASES = [(name, weighted) for name in sorted(TYPES) for weighted in (False, True)]


def reference(type_name: str, rows: F32, importance: F32 | None = None) -> NDArray[np.uint8]:
    """Blocks [n, block_bytes] of the reference."""
    kind = GGML_TYPES[type_name]
    out = np.empty(rows.shape[0] * kind.size_bytes(rows.shape[1]), np.uint8)
    ggml.library().quantize(kind, rows, out, importance)
    return out.reshape(-1, kind.block_bytes)


def made(
    native: Native,
    level: int,
    type_name: str,
    rows: NDArray[np.float32 | np.float16 | np.uint16],
    importance: F32 | None = None,
) -> tuple[NDArray[np.uint8], int]:
    """Blocks of the kernels, and how many of them were left to the reference.

    uint16 stands for bfloat16. The output lies between guard bytes that must not change.
    """
    kind = GGML_TYPES[type_name]
    source = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[rows.dtype.name]
    size = rows.shape[0] * kind.size_bytes(rows.shape[1])
    guarded = np.full(size + 128, 0xA5, np.uint8)
    raw = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    out = guarded[64:-64]
    redone = native.quantize(level, kind, source, raw, rows.shape[1], out, importance)
    assert (guarded[:64] == 0xA5).all() and (guarded[-64:] == 0xA5).all(), "written outside"
    return out.reshape(-1, kind.block_bytes), redone


def differing(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    """How many blocks differ."""
    return int((a != b).any(1).sum())
