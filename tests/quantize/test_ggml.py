"""The block quantisers in the engine's library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwharf.errors import EngineError, UsageError
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.quantize import ggml


def test_q8_0_by_hand() -> None:
    """A scale (F16) and 32 signed bytes: the largest becomes 127."""
    row = np.arange(32, dtype=np.float32)[None] * 4
    out = ggml.quantize("Q8_0", row)
    scale = out[:2].view(np.float16)[0]
    assert scale == np.float16(124 / 127)
    assert out[2:].view(np.int8).tolist() == [round(n * 4 / (124 / 127)) for n in range(32)]


def test_q4_0_by_hand() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, 3] = -8.0
    row[0, 20] = 4.0
    out = ggml.quantize("Q4_0", row)
    assert out[:2].view(np.float16)[0] == 1.0
    nibbles = np.concatenate([out[2:] & 15, out[2:] >> 4])
    assert nibbles.tolist() == [0 if n == 3 else 12 if n == 20 else 8 for n in range(32)]


@pytest.mark.parametrize("name", sorted(ggml.QUANTIZED | ggml.FLOATS))
def test_bytes_do_not_depend_on_threads(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 0.02, (700, 512)).astype(np.float32)
    one = ggml.quantize(name, rows[:64])
    assert one.nbytes == 64 * GGML_TYPES[name].size_bytes(512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ggml, "CHUNK_ELEMENTS", 4096)
        assert np.array_equal(ggml.quantize(name, rows[:64], threads=4), one)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("Q4_K", (1, 128)), ("Q8_0", (1, 31)), ("Q8_0", (32,)), ("F32", (2, 0)), ("Q8_0", (1, 1, 32))],
)
def test_rows_that_do_not_suit(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=name):
        ggml.quantize(name, np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ1_S", "Q8_1", "q4_k", ""])
def test_types_that_cannot_be_made(name: str) -> None:
    with pytest.raises(UsageError):
        ggml.quantize(name, np.zeros((1, 256), np.float32))


def test_not_a_library(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    with pytest.raises(EngineError, match=r"x\.so"):
        ggml.Library(path)
    path.write_bytes(b"\x7fELF")
    with pytest.raises(EngineError, match=r"x\.so"):
        ggml.Library(path)


def test_unsound_blocks_are_seen() -> None:
    rows = np.full((1, 32), 1e30, np.float32)
    assert not ggml.library().valid(GGML_TYPES["Q8_0"], ggml.quantize("Q8_0", rows))
    assert ggml.library().valid(GGML_TYPES["Q8_0"], ggml.quantize("Q8_0", rows * 1e-30))


def test_the_first_error_comes_out() -> None:
    def work(n: int) -> None:
        if n == 3:
            raise ValueError("three")

    for threads in (1, 4):
        with pytest.raises(ValueError, match="three"):
            ggml.run_all(work, range(8), threads)
