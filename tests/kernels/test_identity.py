"""The kernels' bytes are the reference's, whatever is put in."""

from __future__ import annotations

import ctypes
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.quantize import building, ggml, kernels
from qwharf.quantize.kernels import TYPES, Native

from .comparing import CASES, differing, made, reference
from .distributions import DISTRIBUTIONS, IMPORTANCES, importances, weights

LEVELS = {"sse2": 0, "avx2": 1, "avx512": 2}


@pytest.fixture(params=LEVELS, scope="module")
def level(request: pytest.FixtureRequest, native: Native) -> int:
    number = LEVELS[request.param]
    assert native.level_name(number) == request.param
    if number > native.level:
        pytest.skip(f"this processor has no {request.param}")
    return number


@pytest.mark.parametrize(("type_name", "weighted"), CASES)
def test_all_distributions(native: Native, level: int, type_name: str, weighted: bool) -> None:
    shape = (7, 768)
    for name in DISTRIBUTIONS:
        rows = weights(name, 1, shape)
        for kind in IMPORTANCES if weighted else [None]:
            importance = None if kind is None else importances(kind, 1, shape[1])
            out, _ = made(native, level, type_name, rows, importance)
            wrong = differing(out, reference(type_name, rows, importance))
            assert wrong == 0, f"{wrong} of {len(out)} blocks of `{name}` ({kind})"


@pytest.mark.parametrize(("type_name", "weighted"), CASES)
def test_ordinary_weights_need_no_reference(
    native: Native, level: int, type_name: str, weighted: bool
) -> None:
    rows = weights("normal bf16", 2, (64, 1024))
    importance = importances("normal", 2, 1024) if weighted else None
    out, redone = made(native, level, type_name, rows, importance)
    assert redone == 0
    assert differing(out, reference(type_name, rows, importance)) == 0


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(CASES),
    name=st.sampled_from(sorted(DISTRIBUTIONS)),
    importance_name=st.sampled_from(sorted(IMPORTANCES)),
    rows=st.integers(1, 40),
    blocks=st.integers(1, 5),
    source=st.sampled_from(["float32", "float16", "bfloat16"]),
    seed=st.integers(0, 1 << 32),
)
def test_any_shape_and_source(
    native: Native,
    case: tuple[str, bool],
    name: str,
    importance_name: str,
    rows: int,
    blocks: int,
    source: str,
    seed: int,
) -> None:
    type_name, weighted = case
    columns = blocks * GGML_TYPES[type_name].block_elements
    wide = weights(name, seed, (rows, columns))
    narrow: np.ndarray = wide
    if source == "float16":
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float16)
        wide = narrow.astype(np.float32)
    elif source == "bfloat16":
        narrow = (wide.view(np.uint32) >> 16).astype(np.uint16)
        wide = (narrow.astype(np.uint32) << 16).view(np.float32)
    importance = importances(importance_name, seed, columns) if weighted else None
    wanted = reference(type_name, wide, importance)
    for number in range(native.level + 1):
        out, _ = made(native, number, type_name, narrow, importance)
        assert differing(out, wanted) == 0, native.level_name(number)


@pytest.mark.parametrize(("type_name", "weighted"), CASES)
def test_weights_that_are_not_finite(
    native: Native, level: int, type_name: str, weighted: bool
) -> None:
    rng = np.random.default_rng(3)
    rows = weights("normal", 3, (48, 512))
    where = rng.random(rows.shape) < 0.004
    rows[where] = rng.choice(np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32), where.sum())
    importance = importances("normal", 3, 512) if weighted else None
    out, redone = made(native, level, type_name, rows, importance)
    assert redone > 0
    assert differing(out, reference(type_name, rows, importance)) == 0


@pytest.mark.parametrize("type_name", sorted(TYPES))
def test_every_remainder(native: Native, level: int, type_name: str) -> None:
    """A group of blocks that is not full, of every length."""
    columns = GGML_TYPES[type_name].block_elements
    rows = weights("normal", 4, (70, columns))
    wanted = reference(type_name, rows)
    for n in range(1, 71):
        out, _ = made(native, level, type_name, rows[:n])
        assert differing(out, wanted[:n]) == 0, n


@pytest.mark.parametrize("type_name", sorted(TYPES))
def test_side_by_side(native: Native, level: int, type_name: str) -> None:
    rows = weights("laplace", 5, (64, 1024))
    wanted = reference(type_name, rows)
    with ThreadPoolExecutor(4) as pool:
        for out, _ in pool.map(lambda _: made(native, level, type_name, rows), range(8)):
            assert differing(out, wanted) == 0


FLOATING_POINT_MODE = """
#include <immintrin.h>
unsigned mode_get(void) { return _mm_getcsr(); }
void mode_set(unsigned mode) { _mm_setcsr(mode); }
"""


def test_a_thread_in_another_floating_point_mode(native: Native, tmp_path: Path) -> None:
    """Flushing denormals to zero, rounding down: as some libraries leave their threads."""
    words = building.compiler()
    if words is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "mode.c", tmp_path / "mode.so"
    source.write_text(FLOATING_POINT_MODE)
    subprocess.run([*words, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    mode = ctypes.CDLL(str(library))
    before = mode.mode_get()
    flushing, rounding_down = 0x8040, 0x2000
    for name in ("denormal", "1e-20", "1e-8 beside 1", "normal"):
        rows = weights(name, 6, (16, 512))
        for type_name in sorted(TYPES):
            wanted = reference(type_name, rows)
            mode.mode_set(before | flushing | rounding_down)
            try:
                out, _ = made(native, native.level, type_name, rows)
                after = mode.mode_get()
            finally:
                mode.mode_set(before)
            assert differing(out, wanted) == 0, (name, type_name)
            assert after & 0xFFC0 == (before | flushing | rounding_down) & 0xFFC0


def test_bad_calls_are_refused(native: Native) -> None:
    rows = np.zeros((1, 512), np.float32)
    out = np.zeros(288, np.uint8)
    raw = rows.reshape(-1).view(np.uint8)
    for level, type_name, columns in [(3, "Q4_K", 512), (0, "Q4_0", 512), (0, "Q4_K", 100)]:
        with pytest.raises(ValueError):
            native.quantize(level, GGML_TYPES[type_name], "F32", raw, columns, out)
    with pytest.raises(ValueError):
        native.quantize(0, GGML_TYPES["Q4_K"], "F32", raw, 512, out[:-1])


def test_whole_matrix_with_importances(
    library_path: Path, fresh: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = weights("normal", 7, (300, 4096))
    importance = importances("wide", 7, 4096)
    made_by = {}
    for wish in ("reference", str(library_path)):
        monkeypatch.setenv(kernels.VARIABLE, wish)
        monkeypatch.setattr(kernels, "_state", kernels._State())
        made_by[wish] = ggml.quantize("Q4_K", rows, importance=importance, threads=3)
        assert (kernels.native(ggml.library()) is None) == (wish == "reference")
    assert (made_by["reference"] == made_by[str(library_path)]).all()
