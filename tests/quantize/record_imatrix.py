"""Record what llama.cpp's own programs make of importance matrices, for the tests.

    python tests/quantize/record_imatrix.py --llama-quantize PATH --llama-imatrix PATH

Writes golden/imatrix.json: the sha256 of what ``llama-quantize --imatrix`` makes of small seeded
checkpoints, for every quantisation; and golden/imatrix/: what ``llama-imatrix`` writes for two
models of random weights, dense and mixed, in both forms. Run it again when the engine's version
changes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "forward")]

from golden_cases import sha256  # noqa: E402
from imatrix_files import SHAPES, checkpoint, recorded_keys  # noqa: E402
from models_at_hand import CHUNK, DENSE, MOE, TEXT, random_model  # noqa: E402

from qwharf.artifacts.convert import convert  # noqa: E402
from qwharf.types import Format  # noqa: E402


def call(program: Path, *arguments: object, folder: Path) -> None:
    argv = [str(program), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise SystemExit(f"{argv}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def record_files(program: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for case in SHAPES:
            convert(checkpoint(case, folder), Format("gguf", "bf16"), folder / "bf16.gguf")
            out[case] = {}
            for key in recorded_keys(case):
                quantization, _, form = key.partition(" from .")
                matrix = f"{case}.{form or 'gguf'}"
                arguments = ("--imatrix", matrix, "bf16.gguf", "made.gguf", quantization.upper())
                call(program, *arguments, 1, folder=folder)
                out[case][key] = sha256(folder / "made.gguf")
    return out


def record_matrices(program: Path) -> None:
    place = HERE / "golden/imatrix"
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "text.txt").write_text(TEXT, "utf-8")
        for name, arch in (("dense", DENSE), ("moe", MOE)):
            convert(random_model(arch, folder / name), Format("gguf", "f32"), folder / "f32.gguf")
            for form in ("gguf", "dat"):
                call(
                    program,
                    *("-m", "f32.gguf", "-f", "text.txt", "-c", CHUNK, "-b", CHUNK),
                    *("-o", f"{name}.{form}", "--output-format", form, "--no-ppl"),
                    *("-ctk", "f32", "-ctv", "f32", "-fa", "off", "-t", 1, "--parse-special"),
                    folder=folder,
                )
                (place / f"{name}.{form}").write_bytes((folder / f"{name}.{form}").read_bytes())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--llama-quantize", type=Path)
    options.add_argument("--llama-imatrix", type=Path)
    args = options.parse_args()
    if args.llama_quantize:
        text = json.dumps(record_files(args.llama_quantize), indent=1, sort_keys=True)
        (HERE / "golden/imatrix.json").write_text(text + "\n", "utf-8")
    if args.llama_imatrix:
        record_matrices(args.llama_imatrix)


if __name__ == "__main__":
    main()
