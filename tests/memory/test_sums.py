"""Weights, KV cache and buffers against published and measured numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf import catalog, memory
from qwharf.errors import InvalidFile, UsageError
from qwharf.formats.names import FORMATS, parse_format
from qwharf.memory.engines import sglang_reserved_bytes, vllm_batched_tokens
from qwharf.memory.kv_cache import padded_context
from qwharf.memory.llama_cpp import compute_buffer
from qwharf.memory.weights import weights
from qwharf.quantize.mixing import tensor_types
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture, Format

MIB = 2**20
SIZES = ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")


def arch(size: str) -> Architecture:
    return catalog.find(f"qwen3:{size}").architecture


# ---------------------------------------------------------------------------------------- weights

GB = {
    "safetensors:bf16": (1.192, 3.441, 8.045, 16.381, 29.537, 65.524, 61.064, 470.187),
    "safetensors:fp8": (0.752, 2.032, 4.413, 9.437, 16.328, 34.326, 31.175, 236.445),
    "safetensors:awq": (0.540, 1.355, 2.666, 6.098, 9.977, 19.325, 16.803, 124.055),
    "safetensors:gptq-int8": (0.762, 2.065, 4.497, 9.598, 16.634, 35.050, 31.868, 241.868),
    "mlx:4bit": (0.335, 0.968, 2.263, 4.608, 8.308, 18.430, 17.181, 132.266),
    "mlx:6bit": (0.484, 1.398, 3.268, 6.655, 12.000, 26.620, 24.811, 191.027),
    "mlx:8bit": (0.633, 1.828, 4.274, 8.703, 15.692, 34.810, 32.441, 249.788),
}
"""From the layouts that AutoAWQ, GPTQModel, mlx-lm and the FP8 repositories use, in 10^9 bytes."""


@pytest.mark.parametrize("format", GB)
def test_weights_in_other_formats(format: str) -> None:
    for size, expected in zip(SIZES, GB[format], strict=True):
        found = memory.weight_bytes(arch(size), parse_format(format)) / 1e9
        # GPTQ stores an index for each input, about half a per cent of a small model; the FP8
        # figures were made with scales of four bytes, but the repositories have two.
        slack = {"safetensors:gptq-int8": 0.006, "safetensors:fp8": 0.0003}.get(format, 0.0)
        assert found == pytest.approx(expected, rel=slack, abs=0.00051), size


def test_gptq_is_awq_and_the_index() -> None:
    a = arch("8b")
    awq, gptq = (memory.weight_bytes(a, Format("safetensors", q)) for q in ("awq", "gptq-int4"))
    inputs = 4 * a.hidden_size + a.num_attention_heads * a.head_dim + a.hidden_size
    assert gptq - awq == a.num_hidden_layers * (inputs + a.intermediate_size) * 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quantization", ["q4_k_m", "q2_k", "iq4_xs", "q8_0", "iq1_m", "mxfp4_moe"])
def test_a_mix_is_the_sum_of_its_tensors(size: str, quantization: str) -> None:
    a = arch(size)
    found = weights(a, Format("gguf", quantization))
    layers, experts = [0] * a.num_hidden_layers, [0] * a.num_hidden_layers
    rest = 0
    for spec, type_ in tensor_types(a, quantization):
        if spec.name.startswith("blk."):
            sums = experts if spec.role == "expert" else layers
            sums[int(spec.name.split(".")[1])] += type_.size_bytes(spec.elements)
        else:
            rest += type_.size_bytes(spec.elements)
    assert found.layers == tuple(layers)
    assert found.experts == tuple(experts)
    assert found.embedding + found.top == rest


def test_formats_of_eight_and_four_bits_without_zero_points() -> None:
    a = arch("8b")
    bf16, w8, w4, awq = (
        memory.weight_bytes(a, Format("safetensors", q)) for q in ("bf16", "w8a8", "w4a16", "awq")
    )
    assert memory.weight_bytes(a, Format("safetensors", "fp8-channel")) == w8
    linear = 6_945_767_424
    assert bf16 - w8 == pytest.approx(linear, rel=0.001)
    assert awq - w4 == linear // 128 // 2, "which is a zero point of four bits for each group"
    four = memory.weight_bytes(a, Format("mlx", "4bit"))
    assert memory.weight_bytes(a, Format("mlx", "4bit-g128")) < four
    assert memory.weight_bytes(a, Format("mlx", "4bit-g32")) > four


def test_layers_and_the_rest_are_the_whole() -> None:
    q4 = Format("gguf", "q4_k_m")
    for size in SIZES:
        layers = memory.layer_bytes(arch(size), q4)
        assert len(layers) == arch(size).num_hidden_layers
        assert sum(layers) < memory.weight_bytes(arch(size), q4)


@pytest.mark.parametrize(
    ("size", "quantization", "mib", "total_gb"),
    [("30b-a3b", "q4_k_m", 349, 17.553), ("30b-a3b", "q8_0", 612, None),
     ("235b-a22b", "q4_k_m", 1_393, 137.292), ("235b-a22b", "q8_0", 2_448, None)],
)  # fmt: skip
def test_experts(size: str, quantization: str, mib: int, total_gb: float | None) -> None:
    layers = memory.expert_bytes_by_layer(arch(size), Format("gguf", quantization))
    assert sum(layers) / len(layers) / MIB == pytest.approx(mib, abs=1)
    if total_gb is not None:
        assert sum(layers) / 1e9 == pytest.approx(total_gb, abs=0.0006)


def test_layers_of_a_mix_differ() -> None:
    assert len(set(memory.expert_bytes_by_layer(arch("30b-a3b"), Format("gguf", "q4_k_m")))) > 1


def test_a_token_reads_the_active_experts_only() -> None:
    q4 = Format("gguf", "q4_k_m")
    a = arch("30b-a3b")
    experts = sum(memory.expert_bytes_by_layer(a, q4))
    read = memory.read_bytes_per_token(a, q4)
    assert experts * 8 / 128 == pytest.approx(1.10e9, rel=0.01)
    assert experts * 8 // 128 < read < memory.weight_bytes(a, q4) / 8


def test_a_format_without_known_bytes_is_refused() -> None:
    with pytest.raises(UsageError):
        memory.weight_bytes(arch("0.6b"), Format("safetensors", "compressed-tensors"))


@pytest.mark.parametrize("shape", [TINY, TINY_MOE], ids=["dense", "experts"])
def test_a_files_own_header_says_the_same(shape: Architecture, tmp_path: Path) -> None:
    written = write_synthetic_checkpoint(shape, tmp_path, vocab="tiny", layers=2)
    expected = memory.weight_bytes(written.architecture, Format("safetensors", "bf16"))
    assert memory.weight_bytes_of_file(tmp_path) == expected


def test_a_gguf_files_own_header_says_the_same(tmp_path: Path) -> None:
    from qwharf.artifacts.convert import convert

    written = write_synthetic_checkpoint(TINY, tmp_path / "hf", vocab="tiny", layers=2)
    q4 = Format("gguf", "q4_k_m")
    convert(tmp_path / "hf", q4, tmp_path / "model.gguf")
    found = memory.weight_bytes_of_file(tmp_path / "model.gguf")
    assert found == memory.weight_bytes(written.architecture, q4)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidFile, match="bad"):
        memory.weight_bytes_of_file(tmp_path / "bad.gguf")


# --------------------------------------------------------------------------------------- KV cache

KV = {
    "0.6b": (114_688, 60_928, 32_256),
    "1.7b": (114_688, 60_928, 32_256),
    "4b": (147_456, 78_336, 41_472),
    "8b": (147_456, 78_336, 41_472),
    "14b": (163_840, 87_040, 46_080),
    "32b": (262_144, 139_264, 73_728),
    "30b-a3b": (98_304, 52_224, 27_648),
    "235b-a22b": (192_512, 102_272, 54_144),
}
"""Bytes per token in f16, q8_0 and q4_0."""


@pytest.mark.parametrize("size", SIZES)
def test_kv_per_token(size: str) -> None:
    a = arch(size)
    f16, q8, q4 = KV[size]
    assert memory.kv_bytes_per_token(a, "f16") == memory.kv_bytes_per_token(a, "bf16") == f16
    assert memory.kv_bytes_per_token(a, "q8_0") == q8
    assert memory.kv_bytes_per_token(a, "q4_0") == q4
    assert memory.kv_bytes_per_token(a, "fp8") == f16 // 2


def test_kv_as_llama_cpp_reckons_it() -> None:
    """5,760, 3,060 and 1,620 MiB are what its own fit reports for the 8B at 40,960 tokens."""
    sizes = [memory.kv_bytes(arch("8b"), 40_960, t) / MIB for t in ("f16", "q8_0", "q4_0")]
    assert sizes == [5_760, 3_060, 1_620]


@given(st.integers(1, 300_000))
def test_contexts_are_padded_to_256(tokens: int) -> None:
    padded = padded_context(tokens)
    assert padded % 256 == 0
    assert 0 <= padded - tokens < 256


# ---------------------------------------------------------------------------------------- buffers


@pytest.mark.parametrize(
    ("size", "context", "mib"),
    [("0.6b", 4_096, 32), ("0.6b", 32_768, 60), ("1.7b", 4_096, 60), ("1.7b", 32_768, 88),
     ("8b", 4_096, 116), ("30b-a3b", 4_096, 92)],
)  # fmt: skip
def test_compute_buffers_as_measured(size: str, context: int, mib: float) -> None:
    found, formula = compute_buffer(arch(size), context)
    assert found / MIB == pytest.approx(mib, rel=0.01)
    assert f"{context:,}" in formula


@pytest.mark.parametrize(
    ("size", "context", "kv", "rss"),
    [("0.6b", 4_096, "f16", 897), ("0.6b", 4_096, "q8_0", 687), ("0.6b", 32_768, "f16", 4_033),
     ("0.6b", 32_768, "q8_0", 2_353), ("8b", 4_096, "f16", 5_467),
     ("30b-a3b", 4_096, "f16", 18_150)],
)  # fmt: skip
def test_sums_as_measured(size: str, context: int, kv: str, rss: int) -> None:
    """Against the resident memory of the engine alone, which is 32 MiB less than our child's."""
    lines = memory.llama_cpp_lines(
        arch(size),
        Format("gguf", "q4_k_m"),
        context_tokens=context,
        kv_cache_type=kv,  # type: ignore[arg-type]
    )
    total = sum(x.size_bytes for x in lines) / MIB
    assert total - 32 == pytest.approx(rss, rel=0.02)


def test_mapped_files_are_held_twice_where_they_are_repacked() -> None:
    q4 = Format("gguf", "q4_k_m")
    read = memory.llama_cpp_lines(arch("0.6b"), q4, context_tokens=4_096)
    mapped = memory.llama_cpp_lines(arch("0.6b"), q4, context_tokens=4_096, mmap=True)
    more = sum(x.size_bytes for x in mapped) - sum(x.size_bytes for x in read)
    assert more / MIB == pytest.approx(204.75, abs=0.01)


@settings(max_examples=40)
@given(
    size=st.sampled_from(SIZES),
    gpu_layers=st.integers(0, 100),
    cpu_moe_layers=st.integers(0, 100),
    context=st.integers(1, 40_960),
    parallel=st.integers(1, 4),
)
def test_however_it_is_placed_nothing_is_lost(
    size: str, gpu_layers: int, cpu_moe_layers: int, context: int, parallel: int
) -> None:
    q4 = Format("gguf", "q4_k_m")
    a = arch(size)
    lines = memory.llama_cpp_lines(
        a,
        q4,
        context_tokens=context,
        parallel=parallel,
        placement=memory.Placement(gpu_layers=gpu_layers, cpu_moe_layers=cpu_moe_layers),
    )
    weights = sum(x.size_bytes for x in lines if x.label.startswith("weights"))
    kv = sum(x.size_bytes for x in lines if x.label.startswith("KV"))
    tied = a.tie_word_embeddings and gpu_layers > a.num_hidden_layers
    whole = memory.weight_bytes(a, q4)
    assert weights > whole if tied else weights == whole
    assert kv == memory.kv_bytes(a, context, "f16", parallel)
    assert all(x.size_bytes >= 0 and x.formula for x in lines)
    if not gpu_layers:
        assert all(x.where == "host" for x in lines)


def test_unified_memory_is_all_host() -> None:
    lines = memory.llama_cpp_lines(
        arch("8b"),
        Format("gguf", "q8_0"),
        context_tokens=4_096,
        placement=memory.Placement(gpu_layers=99),
        unified_memory=True,
    )
    assert {x.where for x in lines} == {"host"}


# ------------------------------------------------------------------------------------ GPU engines


def test_vllm_defaults_by_card() -> None:
    gib = 2**30
    sizes = [vllm_batched_tokens(n * gib) for n in (24, 80, 180)]
    assert sizes == [2_048, 8_192, 16_384]
    assert memory.vllm_budget_bytes(100 * gib) == 92 * gib


def test_sglang_keeps_ten_gib_of_a_large_card() -> None:
    assert sglang_reserved_bytes(80 * 2**30) >= 10 * 2**30
    assert sglang_reserved_bytes(24 * 10**9) == (512 + 6_144 + 128) * MIB


@pytest.mark.parametrize("lines", [memory.vllm_lines, memory.sglang_lines])
def test_gpu_engines_count_weights_and_kv_exactly(lines: object) -> None:
    a, bf16 = arch("8b"), Format("safetensors", "bf16")
    found = lines(a, bf16, context_tokens=40_000, gpu_total_bytes=80 * 2**30)  # type: ignore[operator]
    by_label = {x.label: x for x in found}
    assert by_label["weights"].size_bytes == memory.weight_bytes(a, bf16)
    assert by_label["KV cache"].size_bytes == 147_456 * 40_000
    assert {x.where for x in found} == {"gpu"}


@pytest.mark.parametrize(
    ("lines", "rest_gb"),
    [
        (memory.vllm_cpu_lines, 2.04),
        (memory.sglang_cpu_lines, 2.0),
        (memory.mlx_lines, 0.4),
    ],
)
def test_engines_on_a_processor_are_estimated(lines: Any, rest_gb: float) -> None:
    """Weights and KV cache exactly, and of the rest what the processes were seen to take."""
    a, bf16 = arch("0.6b"), Format("safetensors", "bf16")
    found = lines(a, bf16, context_tokens=4_096, parallel=2)
    by_label = {x.label: x for x in found}
    assert by_label["weights"].size_bytes == memory.weight_bytes(a, bf16)
    assert by_label["KV cache"].size_bytes == 114_688 * 4_096 * 2
    rest = sum(x.size_bytes for x in found if x.label not in ("weights", "KV cache"))
    assert rest_gb * 1e9 <= rest <= rest_gb * 1e9 + 150e6
    assert {x.where for x in found} == {"host"}
    assert any(word in found[-1].formula for word in ("estimate", "allowance"))


def test_more_cards_than_kv_heads_copy_them() -> None:
    a, fp8 = arch("30b-a3b"), Format("safetensors", "fp8")
    four, eight = (
        memory.vllm_lines(a, fp8, context_tokens=4_096, gpus=n, gpu_total_bytes=80 * 2**30)
        for n in (4, 8)
    )
    assert eight[1].size_bytes == 2 * four[1].size_bytes


@given(st.sampled_from([f for f in FORMATS if f.quantization != "compressed-tensors"]))
def test_every_known_format_has_bytes_or_says_so(format: Format) -> None:
    for a in (TINY, TINY_MOE, replace(TINY, num_hidden_layers=1)):
        try:
            assert memory.weight_bytes(a, format) > 0
        except UsageError as error:
            assert error.hint
