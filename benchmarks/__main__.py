"""Run the benchmarks named, or all: ``python -m benchmarks [install startup memory …]``."""

from __future__ import annotations

import importlib
import sys

ALL = ("install", "startup", "memory", "convert", "scale", "kernels", "speed", "gateway")


def main(names: list[str]) -> int:
    unknown = [n for n in names if n not in ALL]
    if unknown:
        print(f"no benchmark `{unknown[0]}`; there are: {', '.join(ALL)}", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0]]
    worst = 0
    for name in names or ALL:
        worst = max(worst, importlib.import_module(f"benchmarks.{name}").main())
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
