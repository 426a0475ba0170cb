"""The fast quantisers against llama.cpp's own, and numpy, type by type, on one core.

    python -m benchmarks.kernels [--types Q4_K mlx:4 …] [--rounds 9]

Megabytes of F32 weights per second of CPU time, medians of rounds in which both take turns, so that
a noisy machine hits both alike; the ratio is the median of the rounds' ratios. Weights are normal,
rounded to bfloat16 and given to the kernels as bfloat16, as a conversion does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.machine import header, table
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.weights import fp8, mlx
from qwharf.quantize import building, ggml, grouped
from qwharf.quantize import kernels as fast

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Work = tuple[Callable[[], object], int]

COLUMNS = 4096
ROWS = 128
"""A whole block of FP8."""
TYPES = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS", "IQ4_NL")
FOLDERS = ("fp8", "mlx:8", "mlx:6", "mlx:4")


def rate(call: Callable[[], object], times: int, megabytes: float) -> float:
    """Megabytes per second of this thread's CPU time; ``megabytes`` are those of one call."""
    start = time.thread_time()
    for _ in range(times):
        call()
    return times * megabytes / (time.thread_time() - start)


def weights() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The same as F32 and as the bytes of bfloat16."""
    rows = np.random.default_rng(1).normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)
    narrow = (rows.view(np.uint32) >> 16).astype(np.uint16)
    raw = narrow.reshape(-1).view(np.uint8)
    return (narrow.astype(np.uint32) << 16).view(np.float32), raw


def of_type(native: fast.Native, type_name: str, weighted: bool, rounds: int) -> list[object]:
    """One row of the table: a type of GGUF."""
    kind, reference = GGML_TYPES[type_name], ggml.library()
    rows, raw = weights()
    importance = None
    if weighted:
        importance = np.random.default_rng(2).exponential(1, COLUMNS).astype(np.float32)
    few = rows[: ROWS // 16]
    out = np.empty(ROWS * kind.size_bytes(COLUMNS), np.uint8)
    theirs = out[: out.size // 16]
    level = native.level_of(kind, weighted)
    name = f"{type_name}, importances" if weighted else type_name
    if level is None:
        return [name, "not believed", "", ""]
    return compare(
        name,
        (lambda: reference.quantize(kind, few, theirs, importance), few.nbytes),
        (lambda: native.quantize(level, kind, "BF16", raw, COLUMNS, out, importance), rows.nbytes),
        rounds,
    )


def of_folder(target: str, rounds: int) -> list[object]:
    """One row of the table: a format that numpy makes."""
    rows, raw = weights()
    slow: Callable[[], object] = partial(fp8.quantize, rows)
    quick: Callable[[], object] = partial(grouped.fp8_blocks, "BF16", raw, COLUMNS)
    if target != "fp8":
        bits, group = int(target.removeprefix("mlx:")), mlx.GROUP
        slow = partial(mlx.quantize, rows, bits, group)
        quick = partial(grouped.mlx_groups, "BF16", raw, COLUMNS, bits, group)
    if quick() is None:
        return [target, "not believed", "", ""]
    return compare(target, (slow, rows.nbytes), (quick, rows.nbytes), rounds)


def compare(name: str, slow: Work, quick: Work, rounds: int) -> list[object]:
    """Both in turns; the first round warms up."""
    seen = [tuple(rate(work, 2, size / 1e6) for work, size in (slow, quick)) for _ in range(rounds)]
    ratio = statistics.median(q / s for s, q in seen[1:] or seen)
    rates = (statistics.median(column) for column in zip(*(seen[1:] or seen), strict=True))
    return [name, *(f"{r:,.0f}" for r in rates), f"{ratio:.1f}"]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--types", nargs="+", default=[*TYPES, *FOLDERS])
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--library", type=Path, help="default: compiled for this run")
    args = options.parse_args()
    header("Quantisers")
    with tempfile.TemporaryDirectory() as folder:
        path = args.library or building.build(Path(folder))
        os.environ[fast.VARIABLE] = str(path)
        native = fast.native(ggml.library())
        assert native is not None
        print(f"kernels   {native.level_name(native.level)}\n")
        rows = []
        for name in args.types:
            if name in FOLDERS:
                rows.append(of_folder(name, args.rounds))
            else:
                rows += [of_type(native, name, w, args.rounds) for w in (False, True)]
        table(["type", "llama.cpp or numpy, MB/s", "kernels, MB/s", "times"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
