"""Folders, adapters and slices: what vLLM, SGLang and mlx-lm would die of is refused before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_process import spec_of
from hypothesis import given
from hypothesis import strategies as st
from launch_specs import QWEN3_8B, QWEN3_30B

from qwharf.errors import InvalidFile, QwharfError, UnsupportedArchitecture, UsageError
from qwharf.platforms import checkpoints
from qwharf.testing import TINY, write_synthetic_adapter
from qwharf.types import DeploymentSpec, Format

BF16 = Format("safetensors", "bf16")

# ---------------------------------------------------------------------------------- the cards

DENSE_4B = replace(QWEN3_8B, hidden_size=2560, intermediate_size=9728)
DENSE_14B = replace(QWEN3_8B, num_attention_heads=40, intermediate_size=17_408)
DENSE_32B = replace(QWEN3_8B, num_attention_heads=64, intermediate_size=25_600)
QWEN3_235B = replace(QWEN3_30B, num_attention_heads=64, moe_intermediate_size=1536)


@pytest.mark.parametrize(
    ("arch", "group", "good"),
    [
        (QWEN3_8B, 1, [1, 2, 4, 8]),
        (QWEN3_8B, 128, [1, 2, 4, 8]),
        (DENSE_4B, 128, [1, 2, 4]),  # 76 blocks
        (DENSE_14B, 1, [1, 2, 4, 8]),
        (DENSE_14B, 128, [1, 2, 4, 8]),
        (DENSE_32B, 128, [1, 2, 4, 8]),
        (QWEN3_30B, 128, [1, 2, 4, 8]),  # 4 and 8 with whole experts on each card
    ],
)
def test_the_slices_that_work(arch: Any, group: int, good: list[int]) -> None:
    assert [n for n in (1, 2, 3, 4, 5, 6, 7, 8) if checkpoints.splits(arch, n, group)] == good


def test_experts_are_kept_whole_only_where_they_must_be() -> None:
    """Vllm issue 17569: 30B-A3B's blocks allow 2 slices, 235B-A22B's 4."""
    apart = checkpoints.experts_apart
    assert [n for n in (1, 2, 4, 8) if apart(QWEN3_30B, n, 128)] == [4, 8]
    assert [n for n in (1, 2, 4, 8) if apart(QWEN3_235B, n, 128)] == [8]
    assert not any(apart(QWEN3_30B, n, 1) for n in (1, 2, 4, 8))
    assert not apart(QWEN3_8B, 8, 128)


def test_a_split_that_does_not_work_is_refused_with_those_that_do() -> None:
    spec = spec_of(Path("x"), architecture=DENSE_4B, gpus=8, format=Format("safetensors", "fp8"))
    with pytest.raises(UsageError) as e:
        checkpoints.check_split(spec, 128)
    assert "1, 2, 4" in e.value.expected
    checkpoints.check_split(replace(spec, gpus=4), 128)
    checkpoints.check_split(replace(spec, gpus=0), 128)


def of(quantization: str) -> DeploymentSpec:
    return spec_of(Path("x"), platform="vllm", format=Format("safetensors", quantization))


def test_groups_are_read_from_the_configuration() -> None:
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 64]}}
    awq = {"quantization_config": {"quant_method": "awq", "group_size": 32}}
    packed = {
        "quantization_config": {
            "config_groups": {"0": {"weights": {"strategy": "group", "group_size": 16}}}
        }
    }
    group = checkpoints.group_of
    assert group(fp8, of("fp8")) == 64
    assert group(awq, of("awq")) == 32
    assert group(packed, of("w4a16")) == 16
    assert group({}, of("gptq-int4")) == 128
    assert group({}, of("bf16")) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-4, 300) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["weight_block_size", "group_size", "config_groups", "quant_method"])


@given(st.dictionaries(KEYS, JSON | st.dictionaries(st.text(max_size=3), JSON)))
def test_any_configuration_has_a_group(quantization: dict[str, Any]) -> None:
    config = {"quantization_config": quantization}
    assert checkpoints.group_of(config, of("fp8")) >= 1


# --------------------------------------------------------------------------------- the folder


@pytest.fixture
def folder(tiny_gguf: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_gguf.parent / "checkpoint", tmp_path / "model")


def spec(folder: Path, **fields: Any) -> DeploymentSpec:
    return spec_of(folder, format=BF16, platform="vllm", kv_cache_type="bf16", **fields)


def rewrite(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        value = json.loads((folder / name).read_text("utf-8")) | changes
        (folder / name).write_text(json.dumps(value), "utf-8")

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("change", "error", "found"),
    [
        (remove("config.json"), InvalidFile, "config.json"),
        (remove("model.safetensors"), InvalidFile, "model.safetensors"),
        (remove("tokenizer.json"), InvalidFile, "tokenizer.json"),
        (cut, InvalidFile, "model.safetensors"),
        (
            rewrite("config.json", architectures=["LlamaForCausalLM"]),
            UnsupportedArchitecture,
            "LlamaForCausalLM",
        ),
        (rewrite("config.json", num_hidden_layers=4), InvalidFile, "num_hidden_layers"),
        (
            rewrite("config.json", quantization_config={"quant_method": "awq", "bits": 4}),
            InvalidFile,
            "safetensors:awq",
        ),
    ],
)
def test_what_is_not_the_planned_model_is_refused(
    change: Callable[[Path], None], error: type[QwharfError], found: str, folder: Path
) -> None:
    checkpoints.check_folder(spec(folder))
    change(folder)
    with pytest.raises(error) as e:
        checkpoints.check_folder(spec(folder))
    assert found in f"{e.value.subject} {e.value.found} {e.value.expected}"
    assert str(folder) in e.value.subject


# ------------------------------------------------------------------------------- the adapters


def test_adapters_are_looked_over(tmp_path: Path) -> None:
    law = write_synthetic_adapter(TINY, tmp_path / "law", rank=12)
    tax = write_synthetic_adapter(TINY, tmp_path / "tax", rank=40)
    wanted = spec(tmp_path, adapters={"law": law, "tax": tax})
    assert [(a.folder.name, a.rank) for a in checkpoints.check_adapters(wanted)] == [
        ("law", 12),
        ("tax", 40),
    ]
    assert checkpoints.largest_rank(wanted) == 64
    assert checkpoints.largest_rank(replace(wanted, adapters={"law": law})) == 16
    assert checkpoints.largest_rank(replace(wanted, adapters={"x": tmp_path / "gone"})) == 16
    for broken in (replace(TINY, hidden_size=512), replace(TINY, num_hidden_layers=1)):
        with pytest.raises(InvalidFile):
            checkpoints.check_adapters(replace(wanted, architecture=broken))
    with pytest.raises(InvalidFile):
        checkpoints.check_adapters(spec(tmp_path, adapters={"law": tmp_path / "nowhere"}))


# -------------------------------------------------------------------------------- the numbers


def test_the_context_reaches_as_far_as_yarn_does() -> None:
    hybrid = replace(TINY, max_position_embeddings=40_960)
    wanted = spec(Path("x"), architecture=hybrid, context_tokens=131_072)
    checkpoints.check_numbers(wanted, ("bf16",))
    with pytest.raises(UsageError) as e:
        checkpoints.check_numbers(replace(wanted, context_tokens=131_073), ("bf16",))
    assert "131,072" in e.value.expected
    with pytest.raises(UsageError):
        checkpoints.check_numbers(replace(wanted, kv_cache_type="q8_0"), ("bf16",))
    with pytest.raises(UsageError):
        checkpoints.check_numbers(replace(wanted, cpu_moe_layers=2), ("bf16",))
