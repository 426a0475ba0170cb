"""Record what llama.cpp's own ``llama-quantize`` makes, for the tests.

    python tests/quantize/record_golden.py --llama-quantize PATH

Writes golden/tensors.json (sha256 of every tensor, for small seeded checkpoints) and
golden/types.json (which type each tensor gets, for the eight shapes, by a dry run on a file with a
header and no data). Needs nothing but the program; run it again when the engine's version changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from golden_cases import CASES, checkpoint, sha256, tensor_hashes  # noqa: E402
from shapes import QWEN3  # noqa: E402

from qwharf.artifacts.convert import TARGETS, convert  # noqa: E402
from qwharf.formats.ggml_types import GGML_TYPES  # noqa: E402
from qwharf.formats.gguf import read_gguf  # noqa: E402
from qwharf.formats.gguf_writer import GgufWriter, gguf_header  # noqa: E402
from qwharf.formats.tensors import gguf_tensors  # noqa: E402
from qwharf.quantize.mixing import MIXES  # noqa: E402
from qwharf.types import Architecture, Format  # noqa: E402

LINE = re.compile(
    r"^\[ *\d+/ *\d+\] +(?P<name>\S+) +- \[[^\]]*\], type = +(?P<old>\w+), size = [^(\n]*"
    r"(?:\((?P<new>\w+)\))?$",
    re.MULTILINE,
)

ONCE = {"mxfp4_moe": "moe", "iq4_xs": "dense", "iq3_s": "dense", "iq4_nl": "odd", "iq3_m": "odd"}
"""Mixes that are recorded for one case only, because they are slow or need it."""


def quantize(program: Path, *arguments: object) -> str:
    argv = [str(program), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{argv}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def record_tensors(program: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            source = checkpoint(case, Path(place))
            bf16 = Path(place) / "bf16.gguf"
            convert(source, Format("gguf", "bf16"), bf16)
            made: dict[str, Any] = {}
            for name in sorted(TARGETS - {"f32", "f16"}):
                if case != ONCE.get(name, case):
                    continue
                file = Path(place) / "made.gguf"
                quantize(program, bf16, file, name.upper(), 1)
                made[name] = {"file": sha256(file), "tensors": tensor_hashes(read_gguf(file))}
            weights = sha256(source / "model.safetensors")
            out[case] = {"safetensors": weights, "bf16": sha256(bf16), "made": made}
    return out


def header_only(arch: Architecture, path: Path) -> None:
    """A GGUF file whose data is a hole."""
    kind = "qwen3moe" if arch.is_moe else "qwen3"
    numbers = {
        "block_count": arch.num_hidden_layers,
        "context_length": arch.max_position_embeddings,
        "embedding_length": arch.hidden_size,
        "feed_forward_length": arch.intermediate_size,
        "attention.head_count": arch.num_attention_heads,
        "attention.head_count_kv": arch.num_key_value_heads,
        "attention.key_length": arch.head_dim,
        "attention.value_length": arch.head_dim,
    }
    if arch.is_moe:
        numbers |= {"expert_count": arch.num_experts, "expert_used_count": 8}
        numbers["expert_feed_forward_length"] = arch.moe_intermediate_size
    metadata: dict[str, tuple[str, Any]] = {
        "general.architecture": ("str", kind),
        "general.file_type": ("u32", 32),
        f"{kind}.attention.layer_norm_rms_epsilon": ("f32", 1e-6),
        f"{kind}.rope.freq_base": ("f32", 1e6),
        **{f"{kind}.{key}": ("u32", value) for key, value in numbers.items()},
    }
    f32, bf16 = GGML_TYPES["F32"], GGML_TYPES["BF16"]
    tensors = [
        (s.name, s.shape, f32 if s.role in ("norm", "router") else bf16) for s in gguf_tensors(arch)
    ]
    header = gguf_header(metadata, tensors)
    with path.open("wb") as file:
        file.write(header.data)
        file.truncate(header.size_bytes)


def importance(arch: Architecture, path: Path) -> None:
    """An importance matrix of ones for every matrix that takes one."""
    import numpy as np

    f32 = GGML_TYPES["F32"]
    entries = []
    for spec in gguf_tensors(arch):
        if spec.role in ("attention", "ffn", "expert"):
            experts = spec.shape[0] if len(spec.shape) == 3 else 1
            entries.append((f"{spec.name}.in_sum2", (experts, spec.shape[-1]), f32))
            entries.append((f"{spec.name}.counts", (experts, 1), f32))
    metadata: dict[str, tuple[str, Any]] = {
        "general.type": ("str", "imatrix"),
        "imatrix.datasets": ("[str]", ["ones"]),
        "imatrix.chunk_count": ("u32", 1),
        "imatrix.chunk_size": ("u32", 512),
    }
    with GgufWriter(path, metadata, entries) as writer:
        for _, shape, _ in entries:
            writer.write(np.ones(shape, np.float32).data)


def digest(types: dict[str, str]) -> dict[str, Any]:
    lines = "".join(f"{name} {types[name]}\n" for name in sorted(types))
    return {
        "count": dict(sorted(Counter(types.values()).items())),
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
    }


def record_types(program: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        bare, ones = Path(place) / "bare.gguf", Path(place) / "ones.gguf"
        for model, arch in QWEN3.items():
            header_only(arch, bare)
            importance(arch, ones)
            out[model] = {}
            for name, mix in MIXES.items():
                if (name == "mxfp4_moe" and not arch.is_moe) or name in ("f32", "f16", "bf16"):
                    continue
                extra = ["--imatrix", ones] if mix.needs_importance else []
                text = quantize(program, "--dry-run", *extra, bare, Path(place) / "x", name.upper())
                types = {m["name"]: (m["new"] or m["old"]).upper() for m in LINE.finditer(text)}
                if len(types) != len(gguf_tensors(arch)):
                    raise SystemExit(f"{model} {name}: {len(types)} tensors read\n{text[-3000:]}")
                out[model][name] = digest(types)
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--llama-quantize", type=Path, required=True)
    options.add_argument("--only", choices=("tensors", "types"))
    args = options.parse_args()
    for name, record in (("tensors", record_tensors), ("types", record_types)):
        if args.only in (None, name):
            text = json.dumps(record(args.llama_quantize), indent=1, sort_keys=True)
            (HERE / "golden" / f"{name}.json").write_text(text + "\n", "utf-8")
            sys.stdout.write(f"{name} recorded\n")


if __name__ == "__main__":
    main()
