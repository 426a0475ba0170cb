"""Throw many fresh weights at the kernels by hand: ``python -m tests.kernels.fuzz [options]``.

Prints one line per type: how many weights were compared, how many blocks differ, how many were
left to the reference. Ends with 1 if any differs.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path

from qwharf.quantize import building, ggml
from qwharf.quantize.kernels import TYPES, Native

from .comparing import differing, made, reference
from .distributions import DISTRIBUTIONS, IMPORTANCES, importances, weights


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--types", nargs="+", default=sorted(TYPES))
    options.add_argument("--levels", nargs="+", type=int, help="default: all that run here")
    options.add_argument("--rows", type=int, default=64, help="of 1,024 columns, per case")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--library", type=Path, help="default: compiled into ./build")
    args = options.parse_args()
    native = Native(args.library or building.build(Path("build")), ggml.library())
    levels = args.levels if args.levels is not None else list(range(native.level + 1))
    bad = 0
    print(f"levels {', '.join(native.level_name(n) for n in levels)}; seed {args.seed}")
    for type_name in args.types:
        compared = wrong = redone = blocks = 0
        start = time.perf_counter()
        for importance_name in (None, *IMPORTANCES):
            for name in DISTRIBUTIONS:
                # Another seed for each, so that no two cases see the same numbers.
                seed = zlib.crc32(f"{args.seed} {type_name} {importance_name} {name}".encode())
                rows = weights(name, seed, (args.rows, 1024))
                importance = importance_name and importances(importance_name, seed, 1024)
                wanted = reference(type_name, rows, importance)
                for level in levels:
                    out, left = made(native, level, type_name, rows, importance)
                    found = differing(out, wanted)
                    compared, wrong = compared + rows.size, wrong + found
                    blocks, redone = blocks + len(out), redone + left
                    if found:
                        print(f"  {type_name} {importance_name} `{name}` seed {seed}"
                              f" level {level}: {found} of {len(out)} blocks")  # fmt: skip
        print(
            f"{type_name:7} {compared:13,} weights, {wrong} blocks differ,"
            f" {100 * redone / blocks:.1f} % left to the reference,"
            f" {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        bad += wrong
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
