"""MLX's groups and FP8's blocks by the kernels: numpy's bytes, whatever is put in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.formats.weights import fp8, mlx
from qwharf.formats.weights.floats import to_f32
from qwharf.quantize import ggml, grouped, kernels
from qwharf.quantize.kernels import Native

from .distributions import DISTRIBUTIONS, F32, weights

SOURCES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, where 1e30 overflows


def stored(source: str, values: F32) -> np.ndarray[Any, Any]:
    """The weights as ``source`` stores them; finite."""
    if source == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return np.clip(values, -65504, 65504).astype(np.float16) if source == "F16" else values


def raw(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def same(made: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(made, wanted, strict=True))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_all_distributions(native: Native, name: str) -> None:
    values = weights(name, 1, (9, 768))
    tried = 0
    for level in range(native.level + 1):
        for bits in mlx.BITS:
            for group in mlx.GROUPS:
                made = grouped._call_mlx(
                    native, level, "F32", raw(values), 768, bits=bits, group=group
                )
                assert same(made, mlx.quantize(values, bits, group)), (level, bits, group)
                tried += 1
        made = grouped._call_fp8(native, level, "F32", raw(values), 768)
        assert same(made, fp8.quantize(values)), level
    assert tried >= len(mlx.BITS) * len(mlx.GROUPS)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(DISTRIBUTIONS)),
    source=st.sampled_from(sorted(SOURCES)),
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    bits=st.sampled_from(mlx.BITS),
    group=st.sampled_from(mlx.GROUPS),
    seed=st.integers(0, 1 << 32),
)
def test_any_shape_and_source(
    native: Native,
    name: str,
    source: str,
    rows: int,
    columns: int,
    bits: int,
    group: int,
    seed: int,
) -> None:
    wide = weights(name, seed, (rows, 320))  # of which not every distribution has any number
    narrow = stored(source, np.ascontiguousarray(wide[:, :columns]))
    values = to_f32(source, narrow)
    made = grouped._call_fp8(native, native.level, source, raw(narrow), columns)
    assert same(made, fp8.quantize(values))
    grouping = (-(-columns // 64), 2 * group)
    narrow = stored(source, weights(name, seed, grouping))
    made = grouped._call_mlx(
        native, native.level, source, raw(narrow), 2 * group, bits=bits, group=group
    )
    assert same(made, mlx.quantize(to_f32(source, narrow), bits, group))


def test_every_number_of_e4m3(native: Native) -> None:
    """All upper halves of a float with every kind of tail, scaled by one."""
    halves = np.arange(65536, dtype=np.uint32) << 16
    values = np.concatenate([halves | tail for tail in (0, 1, 0x8000, 0xFFFF)]).view(np.float32)
    values = values[np.abs(values) <= 448].copy()
    values = np.append(values, np.zeros(-values.size % 127, np.float32)).reshape(-1, 127)
    values = np.hstack([np.full((len(values), 1), 448, np.float32), values])  # so the scale is one
    for level in range(native.level + 1):
        made = grouped._call_fp8(native, level, "F32", raw(values), 128)
        assert (made[1] == 1).all() and same(made, fp8.quantize(values))


def test_nothing_is_written_outside(native: Native) -> None:
    values = weights("normal", 3, (7, 160))
    for bits in mlx.BITS:
        guarded = [np.full(n + 64, 0xA5, np.uint8) for n in (7 * 20 * bits, 7 * 5 * 4, 7 * 5 * 4)]
        words, scales, biases = (g[32:-32] for g in guarded)
        native.mlx(
            native.level, "F32", raw(values), 32, bits, words.view(np.uint32),
            scales.view(np.float32), biases.view(np.float32),
        )  # fmt: skip
        assert all((g[:32] == 0xA5).all() and (g[-32:] == 0xA5).all() for g in guarded)
    out = np.full((9, 160), 0xA5, np.uint8)
    native.fp8(native.level, "F32", raw(values), out[1:-1], np.empty((1, 2), np.float32))
    assert (out[0] == 0xA5).all() and (out[-1] == 0xA5).all()


def test_bad_calls_are_refused(native: Native) -> None:
    values = raw(np.zeros((1, 128), np.float32))
    words, floats = np.zeros(16, np.uint32), np.zeros(2, np.float32)
    for level, group, bits in [(3, 64, 4), (0, 64, 7), (0, 64, 9), (0, 48, 4), (0, 128, 4)]:
        with pytest.raises(ValueError):
            native.mlx(level, "F32", values, group, bits, words, floats, floats)
    with pytest.raises(ValueError):
        native.fp8(0, "F32", values, np.zeros((1, 64), np.uint8), floats)
    with pytest.raises(ValueError):
        native.fp8(3, "F32", values, np.zeros((1, 128), np.uint8), floats)


def test_without_a_library_numpy_does_it(
    fresh: kernels._State, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = raw(weights("normal", 1, (2, 128)))
    monkeypatch.setenv(kernels.VARIABLE, "reference")
    assert kernels.native(ggml.library()) is None
    assert grouped.fp8_blocks("F32", values, 128) is None
    assert grouped.mlx_groups("F32", values, 128, 4, 64) is None


def test_with_a_library_it_is_used_once_believed(
    fresh: kernels._State, library_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = weights("normal", 1, (2, 128))
    monkeypatch.setenv(kernels.VARIABLE, str(library_path))
    made = grouped.mlx_groups("F32", raw(values), 128, 4, 64)
    assert made is not None and same(made, mlx.quantize(values, 4, 64))
    found = kernels.native(ggml.library())
    assert found is not None
    monkeypatch.setattr(found, "_levels", {("mlx", 4, 64): None})
    assert grouped.mlx_groups("F32", raw(values), 128, 4, 64) is None
