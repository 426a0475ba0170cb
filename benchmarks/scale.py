"""Peak memory of conversions of a large model, at its real widths.

    python -m benchmarks scale [--layers 16] [--targets gguf:q4_k_m fp8 mlx:4] [--folder DIR]

The source has the exact names, shapes and vocabulary of a mixture of experts of 30 billion weights,
with fewer layers if so wished, and no weights in it but zeros: those take no disk. The results do:
a third of the layers makes up to 12 GB. Threads, buffers and headers are those of real weights; of
the time only the reading and writing is, for zeros are quickly rounded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.convert import OURS, forget, size_of
from benchmarks.machine import header, measure, table
from qwharf import catalog
from qwharf.formats.safetensors import safetensors_header
from qwharf.formats.tensors import checkpoint_tensors
from qwharf.quantize import building
from qwharf.quantize.kernels import VARIABLE
from qwharf.testing import config_json, generation_config_json
from qwharf.testing.vocabulary import to_json, tokenizer_config, tokenizer_json, vocabulary

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


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="qwen3:30b-a3b")
    options.add_argument("--layers", type=int, default=4, help="0: all; 4 make 3.5 GB of FP8")
    options.add_argument("--targets", nargs="+", default=["gguf:q4_k_m", "fp8", "mlx:4"])
    options.add_argument("--folder", type=Path, help="where there is room; default: the system's")
    args = options.parse_args()
    header("Conversion at scale")
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        folder, source, out = Path(made), Path(made) / "Zeros", Path(made) / "out"
        library = str(building.build(folder))
        measure([sys.executable, "-c", WRITE, args.model, str(args.layers), str(source)])
        size = (source / "model.safetensors").stat().st_size
        print(f"{args.model}, {args.layers or 'all'} layers, {size / 1e9:.1f} GB in bf16\n")
        for target in args.targets:
            forget(source)
            words = [str(source), target, str(out), source.name]
            run = measure([sys.executable, "-c", OURS, *words], {VARIABLE: library})
            rows.append(
                [
                    target,
                    f"{run.peak_rss_bytes / 2**20:,.0f} MiB",
                    f"{size_of(out) / 1e9:.1f} GB",
                    f"{run.wall_seconds:.0f} s",
                    f"{run.cpu_seconds:.0f} s",
                ]
            )
            shutil.rmtree(out) if out.is_dir() else out.unlink()
    table(["", "peak memory", "written", "wall", "CPU"], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
