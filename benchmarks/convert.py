"""Conversions of a checkpoint, against llama.cpp's converter and ``llama-quantize``, and the disk.

    python -m benchmarks.convert --llama-quantize PATH --converter "PYTHON convert_hf_to_gguf.py"

The source is a synthetic checkpoint of the exact shape, in bf16. For GGUF llama.cpp needs two
steps, and a 16-bit file between them; qwharf one. Beside each target stands what `dd` takes to read
the same source and to write as many bytes, flushed, as qwharf does: the speed of the disk. Rounds
are interleaved, so that noise hits all alike, and each begins with the source out of the page
cache; medians are shown. All use as many threads as there are cores. CPU is user and system time of
all steps, peak memory that of the largest process. The fast quantisers are compiled before the
runs; ``--kernels reference`` does without. Without the peer's paths only qwharf's own figures are
printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Run, header, lines, measure, table
from qwharf.formats.names import parse_format
from qwharf.quantize import building
from qwharf.quantize.kernels import VARIABLE
from qwharf.types import Format

TARGETS = (
    "gguf:q4_k_m", "gguf:q5_k_m", "gguf:iq4_xs", "gguf:q8_0", "gguf:bf16", "fp8", "mlx:4", "mlx:8",
)  # fmt: skip
ONE_STEP = frozenset({"bf16", "q8_0"})
"""What llama.cpp's converter writes itself, in an order and with keys of its own."""
SYNTH = (
    "import sys; from pathlib import Path; from qwharf import catalog, testing; "
    "testing.write_synthetic_checkpoint(catalog.find(sys.argv[1]), Path(sys.argv[2]))"
)
OURS = (
    "import sys; from pathlib import Path; from qwharf.artifacts.convert import convert; "
    "from qwharf.formats.names import parse_format; "
    "convert(Path(sys.argv[1]), parse_format(sys.argv[2]), Path(sys.argv[3]), name=sys.argv[4])"
)
DD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one conversion cost."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    written_bytes: int
    sha256: str


def cost(runs: Sequence[Run], outputs: Sequence[Path]) -> Cost:
    """Of steps one after the other; the last of ``outputs`` is the result. Removes them."""
    written = sum(size_of(path) for path in outputs)
    digest = hashlib.sha256()
    for path in weight_files(outputs[-1]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for path in outputs:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return Cost(
        wall_seconds=sum(run.wall_seconds for run in runs),
        cpu_seconds=sum(run.cpu_seconds for run in runs),
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        written_bytes=written,
        sha256=digest.hexdigest(),
    )


def weight_files(path: Path) -> list[Path]:
    """The file, or all weights of a folder."""
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def size_of(path: Path) -> int:
    """Bytes of a file or a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def forget(source: Path) -> None:
    """Take the weights of ``source`` out of the page cache, where the system allows it."""
    for path in weight_files(source):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours(source: Path, target: Format, folder: Path, env: Mapping[str, str]) -> Cost:
    """The one step of qwharf."""
    out = folder / "ours"
    words = [str(source), str(target), str(out), source.name]
    forget(source)
    return cost([measure([sys.executable, "-c", OURS, *words], env)], [out])


def theirs(source: Path, quantization: str, folder: Path, args: argparse.Namespace) -> Cost:
    """llama.cpp's two steps, or one for what its converter writes itself."""
    between, out = folder / "between.gguf", folder / "theirs.gguf"
    convert = [*shlex.split(args.converter), str(source), "--outfile"]
    forget(source)
    if quantization in ONE_STEP:
        return cost([measure([*convert, str(out), "--outtype", quantization])], [out])
    first = measure([*convert, str(between), "--outtype", "bf16"])
    words = [str(args.llama_quantize), str(between), str(out), quantization.upper()]
    return cost([first, measure([*words, str(os.cpu_count())])], [between, out])


def copying(source: Path, written_bytes: int, folder: Path) -> float:
    """Seconds that ``dd`` takes to read the source's weights and to write and flush so many."""
    out = folder / "copy"
    (path,) = weight_files(source)
    blocks = -(-written_bytes // DD_BYTES)
    forget(source)
    common = ["dd", f"if={path}", f"bs={DD_BYTES}"]
    seconds = measure([*common, f"of={out}", f"count={blocks}", "conv=fsync"]).wall_seconds
    if blocks * DD_BYTES < path.stat().st_size:
        seconds += measure([*common, "of=/dev/null", f"skip={blocks}"]).wall_seconds
    out.unlink()
    return seconds


def median(costs: Sequence[Cost], field: str) -> float:
    """The median of one figure."""
    return float(statistics.median(getattr(one, field) for one in costs))


def row(name: str, costs: Sequence[Cost], peer: Sequence[Cost], disk: Sequence[float]) -> list[str]:
    """One line of the table; in brackets the ratio to the peer: below 1 means less."""
    fields = (
        ("wall_seconds", 1.0, "s"),
        ("cpu_seconds", 1.0, "s"),
        ("peak_rss_bytes", 2**20, "MiB"),
        ("written_bytes", 1e9, "GB"),
    )
    cells = [name]
    for field, unit, symbol in fields:
        value = median(costs, field)
        digits = {"s": 1, "MiB": 0, "GB": 2}[symbol]
        text = f"{value / unit:,.{digits}f} {symbol}"
        if peer and costs is not peer:
            text += f" ({value / median(peer, field):.2f}x)"
        cells.append(text)
    cells.append(f"{statistics.median(disk):.1f} s" if disk else "")
    return cells


def compare(source: Path, name: str, folder: Path, args: argparse.Namespace) -> None:
    """Print the lines of one target: the peer's, if there is one, and qwharf's."""
    target = parse_format(name)
    has_peer = target.container == "gguf" and args.llama_quantize and args.converter
    mine: list[Cost] = []
    peer: list[Cost] = []
    disk: list[float] = []
    for _ in range(args.rounds):
        if has_peer:
            peer.append(theirs(source, target.quantization, folder, args))
        mine.append(ours(source, target, folder, {VARIABLE: args.kernels}))
        disk.append(copying(source, mine[-1].written_bytes, folder))
    label = f"{name}, qwharf"
    if has_peer:
        lines([row(f"{name}, llama.cpp", peer, peer, [])])
        if target.quantization not in ONE_STEP:
            same = len({one.sha256 for one in (*mine, *peer)}) == 1
            label += ", the same bytes" if same else ", OTHER BYTES"
    lines([row(label, mine, peer, disk)])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="qwen3:0.6b")
    options.add_argument("--source", type=Path, help="a checkpoint in one file; default: made anew")
    options.add_argument("--targets", nargs="+", default=list(TARGETS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--llama-quantize", type=Path, help="the peer's binary")
    options.add_argument("--converter", help="how to call the peer's convert_hf_to_gguf.py")
    options.add_argument("--folder", type=Path, help="where there is room; default: the system's")
    options.add_argument("--kernels", help="a library, or `reference`; default: compiled anew")
    args = options.parse_args()
    header("Conversion")
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        folder, source = Path(made), args.source or Path(made) / "Synthetic"
        args.kernels = args.kernels or str(building.build(folder))
        if args.source is None:
            measure([sys.executable, "-c", SYNTH, args.model, str(source)])  # a child: see there
        size = sum(path.stat().st_size for path in weight_files(source))
        what = f"{args.model}, synthetic" if args.source is None else source.name
        print(f"{what}, {size / 1e9:.2f} GB in bf16; {args.rounds} rounds\n")
        table(["", "wall", "CPU", "peak memory", "written", "dd"], [])
        for name in args.targets:
            compare(source, name, folder, args)
    if not (args.llama_quantize and args.converter):
        print("\nthe peer was not given: see --help")
    return 0


if __name__ == "__main__":
    sys.exit(main())
