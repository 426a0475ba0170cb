"""llama.cpp's own block quantisers, called in the engine's shared library through ctypes.

The engine wheel carries ``ggml_quantize_chunk``, the function behind ``llama-quantize``; calling
it gives the same bytes by construction. Where :mod:`qwharf.quantize.kernels` has something faster
that gives these bytes, too, that is called instead. The wheel is not imported (that would start
an engine's runtime in this process): its library is found by :func:`importlib.util.find_spec` and
opened as plain C. ctypes releases the interpreter lock during a call, so threads run side by side.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.errors import EngineError, UsageError
from qwharf.formats.ggml_types import GGML_TYPES, GgmlType
from qwharf.formats.weights.floats import f32_to_bf16
from qwharf.quantize import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHEEL = "xllamacpp"
CHUNK_ELEMENTS = 1 << 20
"""Elements one thread works on at a time: 4 MiB as F32, which stays within its cache."""
FLOATS = frozenset({"F32", "F16", "BF16"})
QUANTIZED = frozenset(
    {"Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL"}
    | {"IQ4_XS", "IQ3_S", "MXFP4"}
)
"""What can be made without an importance matrix (Q2_K only as part of a Q2_K mix)."""

_lock = threading.Lock()


class Library:
    """The few C functions used, with their types declared."""

    def __init__(self, path: Path) -> None:
        try:
            handle = ctypes.CDLL(str(path))
            self._init = handle.ggml_quantize_init
            self._quantize = handle.ggml_quantize_chunk
            self._valid = handle.ggml_validate_row_data
            self._elements, self._bytes = handle.ggml_blck_size, handle.ggml_type_size
        except (OSError, AttributeError) as e:
            raise EngineError(
                str(path),
                found=str(e),
                expected="llama.cpp's ggml_quantize_chunk in the engine's library",
                hint=f"reinstall the engine: pip install --force-reinstall {WHEEL}",
            ) from e
        i64, pointer = ctypes.c_int64, ctypes.c_void_p
        self._init.argtypes, self._init.restype = [ctypes.c_int], None
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, i64, i64, i64, pointer]
        self._quantize.restype = ctypes.c_size_t
        self._valid.argtypes = [ctypes.c_int, pointer, ctypes.c_size_t]
        self._valid.restype = ctypes.c_bool
        self._elements.argtypes, self._elements.restype = [ctypes.c_int], i64
        self._bytes.argtypes, self._bytes.restype = [ctypes.c_int], ctypes.c_size_t
        self._ready: set[int] = set()

    def block(self, type_id: int) -> tuple[int, int]:
        """Elements and bytes of a type's block, as this library has them."""
        return self._elements(type_id), self._bytes(type_id)

    @property
    def address(self) -> int:
        """Of ``ggml_quantize_chunk``."""
        return ctypes.cast(self._quantize, ctypes.c_void_p).value or 0

    def quantize(
        self,
        kind: GgmlType,
        rows: NDArray[np.float32],
        out: NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """Quantise ``rows`` [n_rows, n_cols], contiguous, into ``out`` (exactly the bytes).

        ``importance``, if any, has one number per column.
        """
        if kind.id not in self._ready:
            with _lock:  # builds look-up tables for some types, once
                self._init(kind.id)
                self._ready.add(kind.id)
        n_rows, n_cols = rows.shape
        weights = None if importance is None else importance.ctypes.data
        made = self._quantize(
            kind.id, rows.ctypes.data, out.ctypes.data, 0, n_rows, n_cols, weights
        )
        if made != out.nbytes:
            raise EngineError(
                kind.name, found=f"{made} bytes from the quantiser", expected=f"{out.nbytes}"
            )

    def valid(self, kind: GgmlType, data: NDArray[np.uint8]) -> bool:
        """Whether no block of ``data`` holds an infinite or undefined scale.

        llama.cpp prints a line per bad block and refuses such a tensor when it loads it.
        """
        return bool(self._valid(kind.id, data.ctypes.data, data.nbytes))


@cache
def library() -> Library:
    """The engine's library.

    Raises:
        EngineError: the wheel is not installed, or lacks the functions.
    """
    spec = importlib.util.find_spec(WHEEL)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for pattern in ("*.so", "*.pyd", "*.dylib"):
            for path in sorted(Path(folder).glob(f"{WHEEL}{pattern}")):
                return Library(path)
    raise EngineError(
        WHEEL,
        found="no such package" if spec is None else "a package without a library",
        expected="the engine wheel with llama.cpp's quantisers",
        hint=f"pip install {WHEEL}",
    )


def ggml_type(type_name: str) -> GgmlType:
    """The type called ``type_name`` (``Q4_K``).

    Raises:
        UsageError: there is none, or it cannot be made here.
    """
    kind = GGML_TYPES.get(type_name)
    if kind is None or type_name not in FLOATS | QUANTIZED:
        raise UsageError(
            type_name, found=type_name, expected=f"one of {', '.join(sorted(FLOATS | QUANTIZED))}"
        )
    return kind


def prepare(work: Iterable[tuple[GgmlType, int]]) -> None:
    """Told before a long run what is to be made (types and numbers of weights); returns at once."""
    if weights := sum(n for kind, n in work if kind.name in kernels.SEARCHED):
        kernels.prepare(weights, library())


def encode_raw(
    kind: GgmlType,
    source: str,
    raw: NDArray[np.uint8],
    columns: int,
    out: NDArray[np.uint8],
    importance: NDArray[np.float32] | None = None,
) -> bool:
    """Encode the bytes of contiguous rows of type ``source`` if there is a fast way.

    Args:
        kind: the type to make.
        source: ``F32``, ``F16`` or ``BF16``.
        raw: rows of ``columns`` elements.
        columns: a multiple of the type's block.
        out: exactly the bytes to be made.
        importance: one number per column.

    Returns:
        False if there is none and nothing was done: :func:`encode_rows` has a way for everything.
    """
    if kind.name not in kernels.TYPES:
        return False
    native = kernels.native(library())
    level = native.level_of(kind, importance is not None) if native else None
    if native is None or level is None:
        return False
    native.quantize(level, kind, source, raw, columns, out, importance)
    return True


def encode_rows(
    kind: GgmlType,
    rows: NDArray[np.float32],
    out: NDArray[np.uint8],
    importance: NDArray[np.float32] | None = None,
) -> None:
    """Encode contiguous ``rows`` [n_rows, n_cols] as ``kind`` into ``out``, in this thread.

    ``importance`` has one number per column; only block types use it.
    """
    if kind.name == "F32":
        out[...] = rows.reshape(-1).view(np.uint8)
    elif kind.name == "F16":
        with np.errstate(over="ignore"):  # an overflow becomes infinite; the caller looks
            out.view(np.float16)[...] = rows.reshape(-1)
    elif kind.name == "BF16":
        out.view(np.uint16)[...] = f32_to_bf16(rows.reshape(-1))
    elif not encode_raw(
        kind, "F32", rows.reshape(-1).view(np.uint8), rows.shape[1], out, importance
    ):
        library().quantize(kind, rows, out, importance)


def quantize(
    type_name: str,
    rows: NDArray[np.float32],
    *,
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Encode a whole matrix.

    Args:
        type_name: ``Q4_K``, ``BF16`` …; as in :data:`~qwharf.formats.ggml_types.GGML_TYPES`.
        rows: F32, [n_rows, n_cols]; n_cols a multiple of the type's block.
        importance: one number per column: how much an error there weighs.
        threads: how many work at once; ``None``: one. The bytes do not depend on it.

    Returns:
        The bytes, n_rows times the bytes of a row, as a flat array.

    Raises:
        UsageError: no such type, or rows that it cannot hold.
        EngineError: the engine's library is missing or of another kind.
    """
    kind = ggml_type(type_name)
    if rows.ndim != 2 or rows.shape[1] == 0 or rows.shape[1] % kind.block_elements:
        raise UsageError(
            f"{type_name} rows",
            found=f"an array of shape {rows.shape}",
            expected=f"two dimensions, rows a multiple of {kind.block_elements} long",
        )
    if importance is not None and importance.shape != rows.shape[1:]:
        raise UsageError(
            f"importances for {type_name}",
            found=f"an array of shape {importance.shape}",
            expected=f"one per column, {rows.shape[1]}",
        )
    source = np.ascontiguousarray(rows, dtype=np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance, dtype=np.float32)
    n_rows, n_cols = source.shape
    row_bytes = n_cols // kind.block_elements * kind.block_bytes
    out = np.empty(n_rows * row_bytes, np.uint8)
    step = max(1, CHUNK_ELEMENTS // n_cols)

    def work(first: int) -> None:
        last = min(first + step, n_rows)
        part = out[first * row_bytes : last * row_bytes]
        encode_rows(kind, source[first:last], part, weights)

    run_all(work, range(0, n_rows, step), threads or 1)
    return out


def run_all(work: Callable[[int], Any], items: range, threads: int) -> None:
    """Call ``work`` on every item, ``threads`` at a time; the first exception is raised."""
    if threads < 2 or len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
