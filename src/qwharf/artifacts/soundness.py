"""Whether weights are finite numbers, before and after encoding, and what to say if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.artifacts.encoders import GgmlEncoder
from qwharf.artifacts.output import Unit
from qwharf.errors import InvalidFile
from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.weights.floats import EXPONENT, all_finite
from qwharf.quantize import ggml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


def check_stored(path: Path, name: str, kind: GgmlType, raw: NDArray[np.uint8]) -> None:
    """Refuse stored rows with an element, or the scale of a block, that is no finite number.

    Raises:
        InvalidFile: names the file and the tensor.
    """
    if not _sound(kind, raw):
        raise _not_finite(path, name)


def check_values(path: Path, name: str, values: F32) -> None:
    """Refuse decoded rows with an element that is no finite number; see :func:`check_stored`."""
    if not np.isfinite(values).all():
        raise _not_finite(path, name)


def check_made(
    path: Path, unit: Unit, made: Sequence[NDArray[Any]], values: Callable[[], F32]
) -> None:
    """Refuse what became infinite by encoding, because the target cannot hold it.

    Raises:
        InvalidFile: names the file, the tensor and the largest of ``values``.
    """
    parts = [part for part, _ in unit.parts if part.along != "none"]
    encoder = unit.encoders[0]
    for part, array in zip(parts, made, strict=True):
        if isinstance(encoder, GgmlEncoder):
            good, name = _sound(encoder.kind, array.reshape(-1)), encoder.kind.name
        else:
            good, name = part.dtype not in EXPONENT or all_finite(part.dtype, array), part.dtype
        if not good:
            raise InvalidFile(
                str(path),
                found=f"weights of {unit.name} up to {float(np.abs(values()).max()):.3g}",
                expected=f"weights within the range of {name}",
                hint="convert to bf16, which holds any of them",
                tensor=unit.name,
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


def _not_finite(path: Path, name: str) -> InvalidFile:
    return InvalidFile(
        str(path),
        found=f"an infinite or undefined value (NaN) in the weights of {name}",
        expected="finite numbers",
        hint="the checkpoint is damaged or its training diverged; get it again",
        tensor=name,
    )


def _sound(kind: GgmlType, raw: NDArray[np.uint8]) -> bool:
    if kind.name in EXPONENT:
        return all_finite(kind.name, raw)
    return ggml.library().valid(kind, raw)
