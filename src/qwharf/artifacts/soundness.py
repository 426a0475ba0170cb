"""Whether weights are finite numbers, before and after encoding, and what to say if not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.errors import InvalidFile
from qwharf.formats.ggml_types import GgmlType

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPONENT: dict[str, tuple[Any, int]] = {
    "BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000),
}  # fmt: skip


def all_finite(dtype: str, stored: NDArray[Any]) -> bool:
    """Whether no element of stored floats is infinite or undefined."""
    kind, exponent = EXPONENT[dtype]
    bits = np.ascontiguousarray(stored).view(kind)
    return bits.size == 0 or int((bits & kind(exponent)).max()) != exponent


def not_finite(path: Path, name: str) -> InvalidFile:
    """The error for weights that are not numbers."""
    return InvalidFile(
        str(path),
        found=f"an infinite or undefined value (NaN) in the weights of {name}",
        expected="finite numbers",
        hint="the checkpoint is damaged or its training diverged; get it again",
        tensor=name,
    )


def senseless(path: Path, name: str, found: str) -> InvalidFile:
    """The error for parts of a matrix that do not belong together."""
    return InvalidFile(
        str(path),
        found=f"{name}: {found}",
        expected="numbers that belong together",
        hint="the checkpoint is damaged; get it again",
        tensor=name,
    )


def too_large(path: Path, name: str, dtype: str, values: NDArray[np.float32]) -> InvalidFile:
    """The error for weights that the target cannot hold."""
    return InvalidFile(
        str(path),
        found=f"weights of {name} up to {float(np.abs(values).max()):.3g}",
        expected=f"weights within the range of {dtype}",
        hint="convert to bf16, which holds any of them",
        tensor=name,
    )


def sound(kind: GgmlType, stored: NDArray[np.uint8]) -> bool:
    """Whether no element, and no scale of a block, is infinite or undefined."""
    from qwharf.quantize import ggml

    raw = stored.reshape(-1)
    if kind.name in ggml.FLOATS:
        return ggml.all_finite(kind.name, raw)
    return ggml.library().valid(kind, raw)
