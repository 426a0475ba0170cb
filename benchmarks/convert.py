"""Conversion of safetensors to GGUF, against llama.cpp's converter and ``llama-quantize``.

    python -m benchmarks.convert --llama-quantize PATH --converter "PYTHON convert_hf_to_gguf.py"

The source is a synthetic checkpoint of the exact shape, in bf16. llama.cpp needs two steps, and a
16-bit file between them; qwharf one. Rounds are interleaved, so that noise hits both alike; the
medians are shown. Both use as many threads as there are cores. Peak memory is that of the largest
process. Without the peer's paths only qwharf's own figures are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import header, measure, table

OURS = (
    "import sys; from pathlib import Path; from qwharf.artifacts.convert import convert; "
    "from qwharf.formats.names import parse_format; "
    "convert(Path(sys.argv[1]), parse_format(sys.argv[2]), Path(sys.argv[3]), name=sys.argv[4])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one conversion cost."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    written_bytes: int
    sha256: str


def of_steps(steps: Sequence[Sequence[str]], outputs: Sequence[Path]) -> Cost:
    """Run the steps one after the other; the last of ``outputs`` is the result."""
    runs = [measure(step) for step in steps]
    with outputs[-1].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    written = sum(path.stat().st_size for path in outputs)
    for path in outputs:
        path.unlink()
    return Cost(
        wall_seconds=sum(run.wall_seconds for run in runs),
        cpu_seconds=sum(run.cpu_seconds for run in runs),
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        written_bytes=written,
        sha256=digest,
    )


def ours(source: Path, quantization: str, folder: Path) -> Cost:
    """The one step of qwharf."""
    out = folder / "ours.gguf"
    words = [str(source), f"gguf:{quantization}", str(out), source.name]
    return of_steps([[sys.executable, "-c", OURS, *words]], [out])


def theirs(source: Path, quantization: str, folder: Path, args: argparse.Namespace) -> Cost:
    """llama.cpp's two steps (one for Q8_0, which its converter writes itself)."""
    between, out = folder / "between.gguf", folder / "theirs.gguf"
    converter = shlex.split(args.converter)
    if quantization == "q8_0":
        return of_steps(
            [[*converter, str(source), "--outtype", "q8_0", "--outfile", str(out)]], [out]
        )
    first = [*converter, str(source), "--outtype", "bf16", "--outfile", str(between)]
    second = [str(args.llama_quantize), str(between), str(out), quantization.upper()]
    return of_steps([first, [*second, str(os.cpu_count())]], [between, out])


def median(costs: Sequence[Cost], field: str) -> float:
    """The median of one figure."""
    return float(statistics.median(getattr(cost, field) for cost in costs))


def row(name: str, costs: Sequence[Cost], peer: Sequence[Cost]) -> list[str]:
    """One line of the table; ratios to the peer in brackets, below 1 means less."""
    fields = (
        ("wall_seconds", 1.0, "s"),
        ("cpu_seconds", 1.0, "s"),
        ("peak_rss_bytes", 2**20, "MiB"),
        ("written_bytes", 1e9, "GB"),
    )
    cells = [name]
    for field, unit, symbol in fields:
        value = median(costs, field)
        digits = 2 if symbol == "GB" else 1
        text = f"{value / unit:.{digits}f} {symbol}"
        if peer and costs is not peer:
            text += f" ({value / median(peer, field):.2f}x)"
        cells.append(text)
    return cells


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="qwen3:0.6b")
    options.add_argument("--formats", nargs="+", default=["q4_k_m", "q8_0"])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--llama-quantize", type=Path, help="the peer's binary")
    options.add_argument("--converter", help="how to call the peer's convert_hf_to_gguf.py")
    args = options.parse_args()
    header("Conversion")
    from qwharf import catalog, testing

    rows = []
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "Synthetic"
        testing.write_synthetic_checkpoint(catalog.find(args.model), source)
        size = sum(p.stat().st_size for p in source.glob("*.safetensors"))
        print(f"{args.model}, synthetic, {size / 1e9:.2f} GB in bf16; {args.rounds} rounds\n")
        for quantization in args.formats:
            mine: list[Cost] = []
            peer: list[Cost] = []
            for _ in range(args.rounds):
                if args.llama_quantize and args.converter:
                    peer.append(theirs(source, quantization, Path(made), args))
                mine.append(ours(source, quantization, Path(made)))
            if peer:
                rows.append(row(f"{quantization}, llama.cpp", peer, peer))
            rows.append(row(f"{quantization}, qwharf", mine, peer))
            if peer and quantization != "q8_0":
                same = {cost.sha256 for cost in (*mine, *peer)}
                print(f"{quantization}: {'the same bytes' if len(same) == 1 else 'files differ'}")
    print()
    table(["", "wall", "CPU", "peak memory", "written"], rows)
    if not (args.llama_quantize and args.converter):
        print("\nthe peer was not given: see --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
