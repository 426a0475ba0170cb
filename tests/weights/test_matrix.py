"""Every source format to every target, dense and a mixture of experts; and llama.cpp loads them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matrix_models import BF16, made_as

from qwharf.artifacts.convert import TARGETS as MIXES
from qwharf.artifacts.convert import can_convert, convert
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import Stored, read_stored
from qwharf.formats.names import FORMATS, parse_format
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.quantize.imatrix import Entry, Importance
from qwharf.quantize.mixing import tensor_types
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture, Format

SHAPES = {
    "dense": replace(TINY, num_hidden_layers=1),
    "moe": replace(TINY_MOE, num_hidden_layers=1, num_experts=4),
}
TEXT = "Hi, <|im_start|>you<think>"
FOLDERS = [f for f in FORMATS if f.container != "gguf" and (f == BF16 or can_convert(BF16, f))]
ENDS = [
    *(f for f in FOLDERS if f.container == "safetensors"),
    *(f for f in FOLDERS if f.container == "mlx" and ("-g" not in f.quantization)),
    *(f for f in FOLDERS if f.quantization in ("4bit-g32", "6bit-g128")),
    *(Format("gguf", q) for q in ("bf16", "q8_0", "q4_k_m", "iq4_xs", "q3_k_m")),
]
EXACT = {"bf16", "f16", "f32"}
"""Weights that bf16 holds come through these as they are: f16 has room for those of the tests."""


@pytest.fixture(scope="session", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"matrix-{request.param}") / "bf16"
    write_synthetic_checkpoint(
        SHAPES[request.param], folder, vocab="tiny", chat_template="{{ messages }}"
    )
    return folder


def matrices(stored: Stored) -> Iterator[tuple[str, Any]]:
    files = Files()
    try:
        for name, matrix in stored.matrices.items():
            yield name, matrix.read(files, 0, matrix.shape[0])
    finally:
        files.close()


@cache
def values(path: Path) -> dict[str, Any]:
    return dict(matrices(read_stored(path)))


@pytest.mark.parametrize("source", ENDS, ids=str)
def test_every_source_to_every_target(model: Path, tmp_path: Path, source: Format) -> None:
    given = made_as(model, source)
    before = values(given)
    tokens = load_tokenizer(model).encode(TEXT)
    for target in ENDS:
        if target == source:
            continue
        out = tmp_path / f"{target.container}-{target.quantization}"
        convert(given, target, out)
        stored = read_stored(out)
        # Plain floats for MLX differ from others by a word in the header, which readers pass over.
        assert stored.format == (BF16 if target == Format("mlx", "bf16") else target)
        assert stored.arch == read_stored(model).arch
        for name, after in matrices(stored):
            error = np.linalg.norm(after - before[name]) / np.linalg.norm(before[name])
            limit = loss(target)
            assert error <= limit, (str(target), name, error)
        if target.container != "gguf":
            assert load_tokenizer(out).encode(TEXT) == tokens


def loss(target: Format) -> float:
    """How far weights may be off, in all, relative to their size."""
    if target.quantization in EXACT:
        return 1e-2  # of what only f32 holds exactly
    bits = FORMATS[target].bits_per_weight
    assert bits is not None
    return 2.0 ** (2.2 - bits) if bits < 8 else 0.04


# ---------------------------------------------------------------------------------------- engine

LOAD = """
import json, sys
import xllamacpp as engine
for path in sys.argv[1:]:
    p = engine.CommonParams()
    p.model.path, p.n_ctx, p.n_parallel, p.verbosity = path, 256, 1, -1
    p.offline, p.fit_params, p.warmup, p.cpuparams.n_threads = True, False, False, 1
    server = engine.Server(p)
    asked = {"prompt": "the", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
    print(json.dumps([path, server.handle_completions(asked)["usage"]["completion_tokens"]]))
    del server
"""


def load_all(paths: list[Path]) -> dict[str, int]:
    """Tokens that llama.cpp made with each."""
    argv = [sys.executable, "-c", LOAD, *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


def shape_of(model: Path) -> Architecture:
    return read_stored(model).arch


@pytest.mark.engines
def test_llama_cpp_answers_with_every_mix(model: Path) -> None:
    moe = shape_of(model).is_moe
    mixes = sorted(q for q in MIXES if moe or q != "mxfp4_moe")
    paths = [made_as(model, Format("gguf", q)) for q in mixes]
    assert load_all(paths) == {str(p): 3 for p in paths}


@pytest.mark.engines
def test_llama_cpp_answers_with_every_mix_that_is_weighed(model: Path, tmp_path: Path) -> None:
    arch = shape_of(model)
    rng = np.random.default_rng(3)
    entries = {}
    for spec, _ in tensor_types(arch, "q8_0"):
        if len(spec.shape) > 1:
            experts = spec.shape[0] if len(spec.shape) == 3 else 1
            sums = rng.random((experts, spec.shape[-1]), np.float32) + np.float32(0.01)
            entries[spec.name] = Entry(sums, np.full(experts, 7, np.int64))
    importance = Importance(entries=entries, chunks=1, datasets=("none",))
    paths = []
    for quantization in ("q4_k_m", "iq4_xs", "iq3_xxs", "iq2_m", "iq2_xxs", "iq1_m", "q2_k_s"):
        paths.append(tmp_path / f"{quantization}.gguf")
        convert(model, Format("gguf", quantization), paths[-1], importance=importance)
    assert load_all(paths) == {str(p): 3 for p in paths}


@pytest.mark.engines
@pytest.mark.parametrize("text", ["awq", "mlx:4", "fp8", "gguf:q8_0"])
def test_llama_cpp_answers_with_what_was_quantised_before(
    model: Path, tmp_path: Path, text: str
) -> None:
    convert(made_as(model, parse_format(text)), Format("gguf", "q4_k_m"), tmp_path / "x.gguf")
    assert load_all([tmp_path / "x.gguf"]) == {str(tmp_path / "x.gguf"): 3}
