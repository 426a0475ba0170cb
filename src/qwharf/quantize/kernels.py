"""Fast quantisers that give the same bytes as the slow ones: found, checked, used.

They are C code in ``native/``, called through ctypes. A library made from it is looked for in the
``qwharf-kernels`` wheel and in the user's cache; :func:`prepare` compiles one in the background
when a conversion is large enough to be worth it and the machine has a compiler. Without one,
llama.cpp's own quantisers do the work: slower, with the same result.

A library is believed only after it has given the same bytes as the reference (the installed engine;
for MLX and FP8 numpy), for each type before its first use. So neither a miscompiled library nor an
engine whose algorithm has changed can alter a file.

Environment: ``QWHARF_KERNELS`` is ``auto`` (the default), ``reference`` (never use them), or the
path of a library.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qwharf.errors import UsageError
from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.safetensors import DTYPE_BYTES
from qwharf.quantize import building

if TYPE_CHECKING:
    from numpy.typing import NDArray

VARIABLE = "QWHARF_KERNELS"
WHEEL = "qwharf_kernels"
SEARCHED = frozenset({"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"})
"""Types that llama.cpp makes by a search, many times slower than the kernels."""
TYPES = SEARCHED | {"Q8_0"}
"""Types of GGUF that there are kernels for."""
WORTH_BUILDING = 250_000_000
"""Searched weights from which on compiling (some ten seconds of one core) pays at once."""

_SOURCES = {"F32": 0, "F16": 1, "BF16": 2}
_CHECK_SHAPE = (12, 1024)


class Reference(Protocol):
    """What the kernels need of llama.cpp's library."""

    @property
    def address(self) -> int:
        """Of ``ggml_quantize_chunk``."""

    def quantize(
        self,
        kind: GgmlType,
        rows: NDArray[np.float32],
        out: NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> None:
        """Quantise rows."""


class Native:
    """A loaded library, and which types of which level have been found right."""

    def __init__(self, path: Path, reference: Reference) -> None:
        self.path = path
        self._reference = reference
        handle = ctypes.CDLL(str(path))
        self._call = handle.qwharf_kernels_quantize
        integer, i64, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
        self._call.argtypes = [integer] * 3 + [pointer] * 2 + [i64] * 2 + [pointer] * 2
        self._call.restype = i64
        self._mlx = handle.qwharf_kernels_mlx
        self._mlx.argtypes = [integer] * 2 + [pointer] + [i64] + [integer] * 2 + [pointer] * 3
        self._mlx.restype = i64
        self._fp8 = handle.qwharf_kernels_fp8
        self._fp8.argtypes = [integer] * 2 + [pointer] + [i64] * 2 + [pointer] * 2
        self._fp8.restype = i64
        handle.qwharf_kernels_level.restype = integer
        self._name = handle.qwharf_kernels_level_name
        self._name.argtypes, self._name.restype = [integer], ctypes.c_char_p
        self.level: int = handle.qwharf_kernels_level()
        """The best that this processor can run: 0 SSE2, 1 AVX2, 2 AVX-512."""
        self._levels: dict[tuple[object, ...], int | None] = {}
        self._lock = threading.Lock()

    def level_name(self, level: int) -> str:
        """``avx2`` …"""
        name: bytes = self._name(level)
        return name.decode()

    def level_of(self, kind: GgmlType, weighted: bool) -> int | None:
        """The best level that gives the reference's bytes for ``kind``; ``None``: none does."""
        return self.best((kind.id, weighted), lambda n: self._agrees(kind, weighted, n))

    def best(self, key: tuple[object, ...], agrees: Callable[[int], bool]) -> int | None:
        """The best level that ``agrees`` finds right; asked once for each ``key``."""
        if key not in self._levels:
            with self._lock:
                if key not in self._levels:
                    right = (n for n in range(self.level, -1, -1) if agrees(n))
                    self._levels[key] = next(right, None)
        return self._levels[key]

    def quantize(
        self,
        level: int,
        kind: GgmlType,
        source: str,
        raw: NDArray[np.uint8],
        columns: int,
        out: NDArray[np.uint8],
        importance: NDArray[np.float32] | None = None,
    ) -> int:
        """Quantise rows of ``columns`` weights of type ``source`` into ``out``.

        Args:
            level: at most :attr:`level`.
            kind: one of :data:`TYPES`.
            source: ``F32``, ``F16`` or ``BF16``.
            raw: the bytes of whole rows, contiguous.
            columns: a multiple of the type's block.
            out: exactly the bytes to be made, contiguous.
            importance: one per column, contiguous.

        Returns:
            How many blocks were left to the reference.
        """
        rows = raw.size // (columns * DTYPE_BYTES[source])
        redone: int = self._call(
            level,
            kind.id,
            _SOURCES[source],
            raw.ctypes.data,
            out.ctypes.data,
            rows,
            columns,
            None if importance is None else importance.ctypes.data,
            self._reference.address,
        )
        if redone < 0 or out.nbytes != rows * kind.size_bytes(columns):
            raise ValueError(f"{kind.name}, {raw.size} bytes, {columns} columns: {redone}")
        return redone

    def mlx(
        self,
        level: int,
        source: str,
        raw: NDArray[np.uint8],
        group: int,
        bits: int,
        words: NDArray[np.uint32],
        scales: NDArray[np.float32],
        biases: NDArray[np.float32],
    ) -> None:
        """Quantise whole groups of finite weights into arrays of exactly the sizes needed."""
        elements = raw.size // DTYPE_BYTES[source]
        if words.nbytes * 8 != elements * bits or scales.size * group != elements:
            raise ValueError(f"{words.size} words, {scales.size} scales for {elements} weights")
        arrays = (words.ctypes.data, scales.ctypes.data, biases.ctypes.data)
        made = self._mlx(level, _SOURCES[source], raw.ctypes.data, elements, group, bits, *arrays)
        _expect_done(made, f"mlx, {bits} bits, groups of {group}")

    def fp8(
        self,
        level: int,
        source: str,
        raw: NDArray[np.uint8],
        out: NDArray[np.uint8],
        scales: NDArray[np.float32],
    ) -> None:
        """Quantise finite weights into ``out`` [rows, columns] and the scales of its blocks."""
        rows, columns = out.shape
        if raw.size != out.size * DTYPE_BYTES[source]:
            raise ValueError(f"{raw.size} bytes for {rows} x {columns} weights")
        made = self._fp8(
            level, _SOURCES[source], raw.ctypes.data, rows, columns, out.ctypes.data,
            scales.ctypes.data,
        )  # fmt: skip
        _expect_done(made, "fp8")

    def _agrees(self, kind: GgmlType, weighted: bool, level: int) -> bool:
        """Whether one call gives the reference's bytes, on ordinary and on awkward weights."""
        if kind.name not in TYPES:
            return False
        weights = check_weights()
        rows, columns = weights.shape
        importance = None
        if weighted:
            rng = np.random.default_rng(21)
            importance = (np.abs(rng.normal(0, 1, columns)) + 0.01).astype(np.float32)
        wanted = np.empty(rows * kind.size_bytes(columns), np.uint8)
        made = np.empty_like(wanted)
        self._reference.quantize(kind, weights, wanted, importance)
        raw = weights.reshape(-1).view(np.uint8)
        self.quantize(level, kind, "F32", raw, columns, made, importance)
        return bool((wanted == made).all())


def check_weights() -> NDArray[np.float32]:
    """Some ordinary and some awkward weights, finite: what a kernel has to get right first."""
    columns = _CHECK_SHAPE[1]
    rng = np.random.default_rng(20)
    weights = rng.normal(0, 0.02, _CHECK_SHAPE).astype(np.float32)
    weights[4:] = (weights[4:].view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    weights[2] *= np.where(rng.random(columns) < 0.02, 30, 1).astype(np.float32)
    weights[3] *= rng.random(columns) < 0.1
    weights[4] = -np.abs(weights[4])
    weights[5] *= np.exp(rng.normal(0, 1, columns)).astype(np.float32)
    return weights


def _expect_done(made: int, subject: str) -> None:
    if made:
        raise ValueError(f"{subject}: {made}")


# ------------------------------------------------------------------------------------ finding one


@dataclass(slots=True)
class _State:
    """What this process has found; one, for the library is loaded once."""

    looked: bool = False
    native: Native | None = None
    why: str = ""
    builder: threading.Thread | None = None


_state = _State()
_lock = threading.Lock()


def native(reference: Reference) -> Native | None:
    """The library, if there is one by now.

    Raises:
        UsageError: ``QWHARF_KERNELS`` names a file that is no such library.
    """
    if not _state.looked:
        with _lock:
            if not _state.looked:
                _look(reference)
                _state.looked = True
    return _state.native


def prepare(weights: int, reference: Reference) -> None:
    """Begin to compile a library if none was found and so many weights are to be quantised.

    Returns at once; :func:`native` has the library from when it is ready. That it could not be
    made is noted in the cache, so that it is not tried again and again.
    """
    if native(reference) is not None or weights < WORTH_BUILDING or not _may_build():
        return
    with _lock:
        if _state.builder is None:
            _state.builder = threading.Thread(
                target=_build, args=(reference,), name="build-kernels", daemon=True
            )
            _state.builder.start()


def build(reference: Reference) -> Native:
    """Compile the library now, whatever was found before, and use it from here on.

    Raises:
        BuildError: it cannot be compiled.
        OSError: the cache cannot be written, or the library not be loaded.
    """
    path = building.build(cache_folder())
    _failure().unlink(missing_ok=True)
    loaded = Native(path, reference)
    with _lock:
        _state.looked, _state.native = True, loaded
    return loaded


def cache_folder() -> Path:
    """Where compiled libraries lie: below ``$QWHARF_HOME``, else in the user's cache."""
    if home := os.environ.get("QWHARF_HOME"):
        return Path(home).expanduser() / "cache" / "kernels"
    import platformdirs

    return Path(platformdirs.user_cache_dir("qwharf", appauthor=False)) / "kernels"


def describe(reference: Reference) -> str:
    """In a few words: which kernels are used, or why the reference is."""
    found = native(reference)
    if found is not None:
        return f"{found.level_name(found.level)} kernels ({found.path})"
    return f"llama.cpp's own, several times slower: {_state.why}"


def _look(reference: Reference) -> None:
    wish = os.environ.get(VARIABLE) or "auto"
    if wish == "reference":
        _state.why = f"{VARIABLE}=reference"
        return
    if wish != "auto":
        try:
            _state.native = Native(Path(wish).expanduser(), reference)
        except (OSError, AttributeError) as e:
            raise UsageError(
                VARIABLE,
                found=f"{wish} ({e})",
                expected="`auto`, `reference` or the path of a kernel library",
                hint="unset it, or make a library with: qwharf dev kernels",
            ) from e
        return
    if not building.supported():
        _state.why = "there are no kernels for this kind of machine"
        return
    for path in (*_in_wheel(), cache_folder() / building.library_name()):
        if _trusted(path):
            with contextlib.suppress(OSError, AttributeError):
                _state.native = Native(path, reference)
                return
    _state.why = (
        "no C compiler to build the kernels with (pip install 'qwharf[fast]' needs none)"
        if building.compiler() is None
        else "the kernels could not be built (qwharf dev kernels says why)"
        if _failure().is_file()
        else "the kernels are not built yet (qwharf dev kernels, or any large conversion)"
    )


def _in_wheel() -> list[Path]:
    """The library in the ``qwharf-kernels`` wheel, if it is made from the same sources."""
    spec = importlib.util.find_spec(WHEEL)
    folders = spec.submodule_search_locations if spec else None
    return [Path(folder) / building.library_name() for folder in folders or ()]


def _trusted(path: Path) -> bool:
    """Whether ``path`` is a file that nobody but this user or the system may have written."""
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def _failure() -> Path:
    return cache_folder() / f"{building.library_name()}.failed"


def _may_build() -> bool:
    return (
        (os.environ.get(VARIABLE) or "auto") == "auto"
        and building.supported()
        and building.compiler() is not None
        and not _failure().is_file()
    )


def _build(reference: Reference) -> None:
    try:
        path = building.build(cache_folder())
        loaded = Native(path, reference) if _trusted(path) else None
    except (building.BuildError, OSError, AttributeError) as e:
        with contextlib.suppress(OSError):
            _failure().write_text(str(e), "utf-8")
        return
    with _lock:
        _state.native = loaded
