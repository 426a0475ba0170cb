"""Peak memory of conversions of a large model.

    python -m benchmarks scale [--gb 4] [--targets gguf:q4_k_m fp8 mlx:4] [--folder DIR]

The source has the exact names, shapes and vocabulary of a mixture of experts of 30 billion weights
(61 GB, 18,867 tensors), but nothing in it but zeros: those take no disk. The results do, so each
conversion ends when it has written ``--gb``; it would go on in the same way, with the same threads,
buffers, headers and plan. Of the time, only that of reading and writing is like that of real
weights.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import header, lines, measure, table
from qwharf import catalog
from qwharf.formats.safetensors import safetensors_header
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.quantize import building
from qwharf.quantize.kernels import VARIABLE
from qwharf.testing import config_json, generation_config_json
from qwharf.testing.vocabulary import to_json, tokenizer_config, tokenizer_json, vocabulary

CONVERT = """
import sys
from pathlib import Path
from qwharf.artifacts.convert import convert
from qwharf.formats.names import parse_format

class Enough(Exception):
    pass

def step(done, total, tensor):
    if done > limit:
        raise Enough

source, target, out, limit = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
try:
    convert(source, parse_format(target), out, progress=step)
except Enough:
    pass
"""
WRITE = (
    "import sys; from pathlib import Path; from benchmarks.scale import write_zeros; "
    "write_zeros(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))"
)
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def write_zeros(model: str, layers: int, folder: Path) -> None:
    """A checkpoint of ``model``'s shapes in one file with nothing in it; 0 layers: all."""
    tokens = vocabulary("full")
    arch = catalog.find(model).architecture
    arch = replace(
        arch,
        num_hidden_layers=layers or arch.num_hidden_layers,
        bos_token_id=tokens.added_id("<|endoftext|>"),
        eos_token_id=tokens.added_id("<|im_end|>"),
    )
    folder.mkdir()
    texts = {
        "config.json": config_json(arch),
        "generation_config.json": generation_config_json(arch),
        "tokenizer.json": tokenizer_json(tokens),
        "tokenizer_config.json": tokenizer_config(tokens, TEMPLATE),
    }
    for name, content in texts.items():
        (folder / name).write_text(to_json(content), "utf-8")
    specs = checkpoint_tensors(arch)
    made = safetensors_header([(s.name, "BF16", s.shape) for s in specs], {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(made.data)
        file.truncate(made.size_bytes)


def taken(folder: Path) -> tuple[int, int]:
    """Bytes of all files below ``folder``, and how many of them are really there."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(one.st_size for one in found), sum(one.st_blocks * 512 for one in found)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="qwen3:30b-a3b")
    options.add_argument("--layers", type=int, default=0, help="default: all")
    options.add_argument("--gb", type=float, default=4, help="end each conversion there")
    options.add_argument("--targets", nargs="+", default=["gguf:q4_k_m", "fp8", "mlx:4"])
    options.add_argument("--folder", type=Path, help="where there is room; default: the system's")
    options.add_argument("--kernels", help="a library, or `reference`; default: compiled anew")
    args = options.parse_args()
    header("Conversion at scale")
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        folder, source, out = Path(made), Path(made) / "Zeros", Path(made) / "out"
        library = args.kernels or str(building.build(folder))
        measure([sys.executable, "-c", WRITE, args.model, str(args.layers), str(source)])
        size = (source / "model.safetensors").stat().st_size
        print(f"{args.model}, {args.layers or 'all'} layers, {size / 1e9:.1f} GB in bf16\n")
        table(["", "peak memory", "written", "wall", "CPU"], [])
        for target in args.targets:
            out.mkdir()
            words = [str(source), target, str(out / "made"), str(int(args.gb * 1e9))]
            run = measure([sys.executable, "-c", CONVERT, *words], {VARIABLE: library})
            whole, there = taken(out)
            cells = [
                target,
                f"{run.peak_rss_bytes / 2**20:,.0f} MiB",
                f"{there / 1e9:.1f} of {whole / 1e9:.1f} GB",
                f"{run.wall_seconds:.0f} s",
                f"{run.cpu_seconds:.0f} s",
            ]
            lines([cells])
            shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
