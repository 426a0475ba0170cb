"""Whole conversions: every source format to every kind of target, interrupted, and damaged."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwharf.artifacts import streaming
from qwharf.artifacts.convert import can_convert, convert
from qwharf.artifacts.converting import convert_artifact
from qwharf.artifacts.folder_plan import folder_output
from qwharf.artifacts.importing import import_path
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.store import Store
from qwharf.artifacts.stored import read_stored
from qwharf.errors import Conflict, FormatUnavailable, InvalidFile, QwharfError
from qwharf.formats.names import parse_format
from qwharf.formats.tokenizer import load_tokenizer
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture, Format

DENSE = replace(TINY, num_hidden_layers=1)
MOE = replace(TINY_MOE, num_hidden_layers=1, num_experts=4, moe_intermediate_size=128)
TARGETS = {
    "safetensors:f32": 0.0,
    "safetensors:fp8": 0.004,
    "safetensors:w4a16": 0.007,
    "safetensors:w8a8": 0.0005,
    "safetensors:fp8-channel": 0.004,
    "safetensors:awq": 0.007,
    "safetensors:gptq-int4": 0.007,
    "safetensors:gptq-int8": 0.0005,
    "mlx:bf16": 0.0,
    "mlx:4bit": 0.011,
    "mlx:6bit": 0.004,
    "mlx:8bit": 0.002,
    "gguf:q8_0": 0.0005,
}
"""And how far a weight may be off; they lie within 0.09."""


def named(text: str) -> Format:
    return Format(*text.split(":"))  # type: ignore[arg-type]


def make(arch: Architecture, folder: Path, **options: Any) -> Path:
    write_synthetic_checkpoint(
        arch, folder, vocab="tiny", chat_template="{{ messages }}", **options
    )
    return folder


@pytest.fixture(scope="session", params=["dense", "moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch = DENSE if request.param == "dense" else MOE
    return make(arch, tmp_path_factory.mktemp(request.param) / "source", lm_head=True)


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(DENSE, tmp_path_factory.mktemp("only") / "source", lm_head=True)


def values(path: Path) -> dict[str, Any]:
    files = Files()
    try:
        matrices = read_stored(path).matrices
        return {n: m.read(files, 0, m.shape[0]) for n, m in matrices.items()}
    finally:
        files.close()


def out_path(folder: Path, target: Format) -> Path:
    return folder / f"{target.quantization}{'.gguf' if target.container == 'gguf' else ''}"


@pytest.mark.parametrize("text", TARGETS)
def test_there_and_back(model: Path, tmp_path: Path, text: str) -> None:
    target = named(text)
    made = out_path(tmp_path, target)
    convert(model, target, made, threads=2)
    wanted, found = values(model), values(made)
    assert found.keys() == wanted.keys()
    worst = max(float(np.abs(found[n] - wanted[n]).max()) for n in wanted)
    assert worst <= TARGETS[text]
    back = tmp_path / "back"
    convert(made, Format("safetensors", "f32"), back, threads=2)
    again = values(back)
    assert all(np.array_equal(again[n], found[n]) for n in wanted)
    config = json.loads((back / "config.json").read_text("utf-8"))
    original = json.loads((model / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config and config["torch_dtype"] == "float32"
    left_out = {"torch_dtype", "eos_token_id", "transformers_version"}
    assert {k: v for k, v in config.items() if k not in left_out} == {
        k: v for k, v in original.items() if k not in left_out
    }
    text = "Hi, <|im_start|>you<think>"
    assert load_tokenizer(back).encode(text) == load_tokenizer(model).encode(text)
    assert list(tmp_path.glob("*.partial*")) == []


@pytest.mark.parametrize("text", ["safetensors:fp8", "safetensors:gptq-int8", "mlx:8bit"])
def test_from_quantized_to_gguf(model: Path, tmp_path: Path, text: str) -> None:
    made = tmp_path / "quantized"
    convert(model, named(text), made)
    convert(made, Format("gguf", "q8_0"), tmp_path / "a.gguf")
    convert(made, Format("safetensors", "f32"), tmp_path / "wide")
    convert(tmp_path / "wide", Format("gguf", "q8_0"), tmp_path / "b.gguf")
    # By way of float32 or at once, by either engine: the same values.
    a, b = values(tmp_path / "a.gguf"), values(tmp_path / "b.gguf")
    assert all(np.array_equal(a[n], b[n]) for n in a)


def test_the_same_bytes_whatever_threads_and_memory(dense: Path, tmp_path: Path) -> None:
    for text in ("safetensors:fp8", "safetensors:awq", "mlx:4bit"):
        seen = set()
        for n, (threads, memory) in enumerate(((1, 1 << 30), (3, 1), (2, 158 << 20))):
            stored = read_stored(dense)
            out = tmp_path / f"{named(text).quantization}-{n}"
            plan = folder_output(stored, named(text), out, "test")
            streaming.run(plan, threads=threads, memory_bytes=memory)
            seen.add(digest(out))
        assert len(seen) == 1


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of each weight file."""
    files = folder.glob("*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_shards_of_bounded_size(dense: Path, tmp_path: Path) -> None:
    plan = folder_output(
        read_stored(dense), Format("safetensors", "w8a8"), tmp_path / "out", "test", 200_000
    )
    made = streaming.run(plan, digest=True)
    assert made.sha256 == digests(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    sizes = [p.stat().st_size for p in (tmp_path / "out").glob("model-*.safetensors")]
    assert len(sizes) > 2 and max(sizes) < 500_000  # the embedding alone is 300,000
    assert len(set(index["weight_map"].values())) == len(sizes)
    assert values(tmp_path / "out").keys() == values(dense).keys()


class Stop(Exception):
    """What stands for a kill here: nothing after it is done."""


def stop_at(fraction: float) -> Callable[..., None]:
    def step(done: int, total: int, _: str) -> None:
        if done >= fraction * total:
            raise Stop

    return step


def test_interrupted_at_any_point(dense: Path, tmp_path: Path) -> None:
    target = Format("safetensors", "gptq-int4")
    plan = folder_output(read_stored(dense), target, tmp_path / "clean", "test")
    streaming.run(plan)
    wanted = digest(tmp_path / "clean")
    plan = folder_output(read_stored(dense), target, tmp_path / "out", "test")
    for n in range(6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streaming, "FLUSH_BYTES", 1)
            with pytest.raises(Stop):
                streaming.run(plan, threads=2, progress=stop_at(0.1 + 0.14 * n))
        assert not (tmp_path / "out").exists()
        made = streaming.run(plan, threads=2, digest=True)
        assert n < 3 or made.resumed > 0
        assert made.sha256 == digests(tmp_path / "out")
        assert digest(tmp_path / "out") == wanted
        shutil.rmtree(tmp_path / "out")


def test_a_journal_of_another_plan_is_not_believed(dense: Path, tmp_path: Path) -> None:
    fp8, w8a8 = Format("safetensors", "fp8"), Format("safetensors", "w8a8")
    for identity in ("one", "two"):
        plan = folder_output(read_stored(dense), fp8, tmp_path / "out", identity)
        with pytest.raises(Stop):
            streaming.run(plan, progress=stop_at(0.1))
    assert convert(dense, w8a8, tmp_path / "out").resumed_tensors == 0


def test_a_folder_with_content_is_left_alone(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict):
        convert(dense, Format("safetensors", "fp8"), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_weights_that_are_not_finite_are_named(dense: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(dense, bad)
    entry = read_stored(bad).matrices["model.layers.0.mlp.up_proj.weight"].region
    data = bytearray(entry.path.read_bytes())
    data[entry.offset + 100 : entry.offset + 102] = b"\x80\x7f"
    entry.path.write_bytes(data)
    for text in ("safetensors:fp8", "mlx:4bit", "safetensors:awq", "safetensors:f16"):
        with pytest.raises(InvalidFile) as caught:
            convert(bad, named(text), tmp_path / "out")
        assert caught.value.facts["tensor"].startswith("model.layers.0.mlp.up_proj")
        assert not list(tmp_path.glob("out*"))


def test_weights_too_large_for_float16_are_named(dense: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(dense, bad)
    entry = read_stored(bad).matrices["model.norm.weight"].region
    data = bytearray(entry.path.read_bytes())
    data[entry.offset : entry.offset + 2] = b"\x80\x49"  # a million
    entry.path.write_bytes(data)
    with pytest.raises(InvalidFile, match=r"model\.norm\.weight up to"):
        convert(bad, Format("safetensors", "awq"), tmp_path / "out")


def test_shapes_that_a_format_cannot_hold(tmp_path: Path) -> None:
    odd = make(replace(DENSE, intermediate_size=192), tmp_path / "odd")
    with pytest.raises(FormatUnavailable, match="192"):
        convert(odd, Format("safetensors", "awq"), tmp_path / "out")
    convert(odd, Format("mlx", "4bit-g128"), tmp_path / "mlx")  # such rows stay as they are
    convert(odd, Format("safetensors", "fp8"), tmp_path / "fp8")  # with a block that is not full
    assert values(tmp_path / "fp8").keys() == values(odd).keys()


def test_what_can_be_converted() -> None:
    plain, q8 = Format("safetensors", "bf16"), Format("gguf", "q8_0")
    for text in TARGETS:
        assert can_convert(plain, named(text)) and parse_format(text) == named(text)
    assert can_convert(q8, plain) and can_convert(q8, Format("mlx", "4bit"))
    assert not can_convert(plain, plain)
    for text in ("safetensors:compressed-tensors", "mlx:7bit", "gguf:iq1_s", "safetensors:q4"):
        assert not can_convert(plain, named(text))


def test_kept_in_the_store(dense: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        source = import_path(store, dense, model="qwen3:tiny").artifact
        target = Format("safetensors", "w4a16")
        made = convert_artifact(store, source, target)
        assert made.format == target and made.path.is_dir()
        assert read_stored(made.path).format == target
        assert {f.name for f in made.files} >= {"config.json", "tokenizer.json"}
        assert convert_artifact(store, source, target) == made
        assert store.verify() == [] and list((store.root / "work").iterdir()) == []


@pytest.mark.parametrize("text", ["safetensors:gptq-int4", "safetensors:w4a16", "mlx:4bit"])
def test_damage_of_every_kind_is_a_typed_error(dense: Path, tmp_path: Path, text: str) -> None:
    good = tmp_path / "good"
    convert(dense, named(text), good)
    weights = good / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    rng = random.Random(5)
    for n in range(40):
        bad = tmp_path / f"bad-{n}"
        shutil.copytree(good, bad)
        changed = {k: dict(v) for k, v in header.items()}
        name = rng.choice([k for k in changed if k != "__metadata__"])
        kind = rng.randrange(5)
        if kind == 0:
            changed[name]["shape"] = [rng.choice([0, 1, 2, 3, 7, 1 << 20])] * rng.randrange(3)
        elif kind == 1:
            others = {"I8", "F32", "U32", "BF16", "F8_E4M3", "BOOL"} - {changed[name]["dtype"]}
            if changed[name]["dtype"] == "F16":
                others.remove("BF16")  # nothing tells them apart
            changed[name]["dtype"] = rng.choice(sorted(others))
        elif kind == 2:
            changed[name + ".extra"] = changed.pop(name)
        elif kind == 3:
            shape = changed[name]["shape"]
            changed[name]["shape"] = shape[::-1] if shape[::-1] != shape else [*shape, 2]
        head = json.dumps(changed).encode()
        body = data[8 + length :]
        if kind == 4:
            body = body[: rng.randrange(len(body))]
        (bad / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + body)
        try:
            convert(bad, Format("safetensors", "bf16"), tmp_path / f"out-{n}")
        except QwharfError:
            assert not (tmp_path / f"out-{n}").exists()
        else:  # the same after all, or a vector (or square) turned
            assert kind == 3 or changed == header, (name, header[name], changed.get(name))
        shutil.rmtree(bad)
