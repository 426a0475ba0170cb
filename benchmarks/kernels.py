"""The fast quantisers against llama.cpp's own, type by type, on one core.

    python -m benchmarks.kernels [--types Q4_K …] [--rounds 9] [--importance]

Megabytes of F32 weights per second of CPU time, medians of rounds in which both take turns, so that
a noisy machine hits both alike; the ratio is the median of the rounds' ratios. Weights are normal,
rounded to bfloat16 and given to the kernels as bfloat16, as a conversion does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import header, table
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.quantize import building, ggml
from qwharf.quantize import kernels as fast

COLUMNS = 4096
ROWS = 64
TYPES = ("Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS", "IQ4_NL")


def rate(call: Callable[[], object], megabytes: float) -> float:
    """Megabytes per second of this thread's CPU time."""
    start = time.thread_time()
    call()
    return megabytes / (time.thread_time() - start)


def compare(native: fast.Native, type_name: str, weighted: bool, rounds: int) -> list[object]:
    """One row of the table."""
    kind, reference = GGML_TYPES[type_name], ggml.library()
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)
    narrow = (rows.view(np.uint32) >> 16).astype(np.uint16)
    rows = (narrow.astype(np.uint32) << 16).view(np.float32)
    importance = rng.exponential(1, COLUMNS).astype(np.float32) if weighted else None
    few = rows[: ROWS // 8]
    out = np.empty(ROWS * kind.size_bytes(COLUMNS), np.uint8)
    theirs = out[: out.size // 8]
    raw = narrow.reshape(-1).view(np.uint8)
    level = native.level_of(kind, weighted)
    if level is None:
        return [type_name, "yes" if weighted else "no", "not believed", "", ""]
    seen: list[tuple[float, float]] = []
    for n in range(rounds + 1):
        slow = rate(lambda: reference.quantize(kind, few, theirs, importance), few.nbytes / 1e6)
        quick = rate(
            lambda: [
                native.quantize(level, kind, "BF16", raw, COLUMNS, out, importance)
                for _ in range(2)
            ],
            2 * rows.nbytes / 1e6,
        )
        if n:
            seen.append((slow, quick))
    ratio = statistics.median(quick / slow for slow, quick in seen)
    return [
        type_name,
        "yes" if weighted else "no",
        f"{statistics.median(s for s, _ in seen):.0f}",
        f"{statistics.median(q for _, q in seen):.0f}",
        f"{ratio:.1f}",
    ]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--types", nargs="+", default=list(TYPES))
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--library", type=Path, help="default: compiled for this run")
    args = options.parse_args()
    header("Quantisers")
    with tempfile.TemporaryDirectory() as folder:
        native = fast.Native(args.library or building.build(Path(folder)), ggml.library())
        print(f"kernels   {native.level_name(native.level)}\n")
        cases = [(t, w) for t in args.types for w in (False, True)]
        table(
            ["type", "importances", "llama.cpp MB/s", "kernels MB/s", "times"],
            [compare(native, t, w, args.rounds) for t, w in cases],
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
