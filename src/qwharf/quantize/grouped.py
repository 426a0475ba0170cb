"""MLX's groups and FP8's blocks by the kernels, where there is a library of them.

What is made is said in :mod:`qwharf.formats.weights.mlx` and ``fp8``. The kernels give the same
bytes several times faster and are believed, as the others are, once they have done so here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.errors import EngineError
from qwharf.formats.safetensors import DTYPE_BYTES
from qwharf.formats.weights import fp8, mlx
from qwharf.quantize import ggml, kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]
    U8 = NDArray[np.uint8]
    Made = tuple[NDArray[Any], ...]
    Call = Callable[[kernels.Native, int, str, U8, int], Made]


def mlx_groups(source: str, raw: U8, columns: int, bits: int, group: int) -> Made | None:
    """Words, scales and biases as :func:`~qwharf.formats.weights.mlx.quantize` makes them.

    Args:
        source: ``F32``, ``F16`` or ``BF16``.
        raw: the bytes of whole rows of finite weights, contiguous.
        columns: of a row, whole groups.
        bits: one of :data:`~qwharf.formats.weights.mlx.BITS`.
        group: one of :data:`~qwharf.formats.weights.mlx.GROUPS`.

    Returns:
        ``None`` without a library that gives the same bytes.
    """
    call = partial(_call_mlx, bits=bits, group=group)
    quantize = partial(mlx.quantize, bits=bits, group=group)
    return _made(("mlx", bits, group), call, quantize, source, raw, columns)


def fp8_blocks(source: str, raw: U8, columns: int) -> Made | None:
    """Patterns and scales as :func:`~qwharf.formats.weights.fp8.quantize` makes them.

    For the arguments and what is returned see :func:`mlx_groups`; the first row begins a block.
    """
    return _made(("fp8",), _call_fp8, fp8.quantize, source, raw, columns)


def _made(
    key: tuple[object, ...],
    call: Call,
    quantize: Callable[[F32], Made],
    source: str,
    raw: U8,
    columns: int,
) -> Made | None:
    try:
        native = kernels.native(ggml.library())
    except EngineError:  # no engine installed: nothing here needs one
        return None
    if native is None:
        return None

    def agrees(level: int) -> bool:
        weights = kernels.check_weights()
        made = call(native, level, "F32", weights.reshape(-1).view(np.uint8), weights.shape[1])
        wanted = quantize(weights)
        return all(a.tobytes() == b.tobytes() for a, b in zip(made, wanted, strict=True))

    level = native.best(key, agrees)
    return None if level is None else call(native, level, source, raw, columns)


def _call_mlx(
    native: kernels.Native, level: int, source: str, raw: U8, columns: int, *, bits: int, group: int
) -> Made:
    rows = _rows(source, raw, columns)
    words = np.empty((rows, columns * bits // 32), np.uint32)
    scales = np.empty((rows, columns // group), np.float32)
    biases = np.empty_like(scales)
    native.mlx(level, source, raw, group, bits, words, scales, biases)
    return words, scales, biases


def _call_fp8(native: kernels.Native, level: int, source: str, raw: U8, columns: int) -> Made:
    rows = _rows(source, raw, columns)
    made = np.empty((rows, columns), np.uint8)
    scales = np.empty(fp8.scale_shape(rows, columns), np.float32)
    native.fp8(level, source, raw, made, scales)
    return made, scales


def _rows(source: str, raw: U8, columns: int) -> int:
    return raw.size // (columns * DTYPE_BYTES[source])
