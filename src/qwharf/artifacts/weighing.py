"""An importance matrix, dealt out to the tensors of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qwharf.errors import FormatUnavailable
from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.tensors import TensorSpec
from qwharf.quantize.ggml import FLOATS
from qwharf.quantize.imatrix import Importance, needs_importance

if TYPE_CHECKING:
    from numpy.typing import NDArray


def importances(
    importance: Importance,
    specs: Sequence[TensorSpec],
    types: Mapping[str, GgmlType],
    quantization: str,
) -> dict[str, NDArray[np.float32]]:
    """The importances of each tensor that has some, [experts, columns].

    Args:
        importance: the matrix.
        specs: the tensors of a GGUF file.
        types: what each is to be, by name.
        quantization: of the whole file.

    Raises:
        InvalidFile: the matrix is of another model: it has other columns.
        FormatUnavailable: it lacks a tensor that cannot be made without.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for spec in specs:
        kind = types[spec.name].name
        if kind in FLOATS:
            continue
        experts = spec.shape[0] if len(spec.shape) == 3 else 1
        weights = importance.weights(spec.name, experts, spec.shape[-1])
        if weights is not None:
            found[spec.name] = weights
        elif needs_importance(spec.name, kind, quantization):
            raise FormatUnavailable(
                importance.source,
                found=f"no importances for {spec.name}",
                expected=f"some, without which {kind} would be garbage",
                hint="use an importance matrix that was made from this model",
                tensor=spec.name,
            )
    return found
