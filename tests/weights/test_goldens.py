"""Every reader and writer against what the formats' own libraries made; see make_goldens.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.weights import awq, bits, compressed, fp8, ggml, gptq, mlx
from qwharf.formats.weights.floats import (
    e4m3_to_f32,
    f32_to_bf16,
    f32_to_e4m3,
    from_f32,
    to_f32,
)

Golden = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("name", ggml.TYPES)
def test_gguf_types_read_as_the_gguf_package_reads_them(golden: Golden, name: str) -> None:
    recorded = golden("gguf")
    values = ggml.dequantize(GGML_TYPES[name], recorded[f"{name}.raw"])
    assert np.array_equal(values.view(np.uint32), recorded[f"{name}.bits"])


@pytest.mark.parametrize("group", mlx.GROUPS)
@pytest.mark.parametrize("width", mlx.BITS)
def test_mlx_both_ways_as_mlx_does_it(golden: Golden, width: int, group: int) -> None:
    recorded = golden("mlx")
    tried = 0
    for dtype in ("BF16", "F16", "F32"):
        key = f"{dtype}.{width}.{group}"
        if f"{key}.words" not in recorded:
            continue
        tried += 1
        weight = to_f32(dtype, _stored(dtype, recorded[f"{dtype}.weight"]))
        words, scales, biases = mlx.quantize(weight, width, group)
        assert np.array_equal(words, recorded[f"{key}.words"])
        for name, made in (("scales", scales), ("biases", biases)):
            assert np.array_equal(_bits(from_f32(dtype, made)), recorded[f"{key}.{name}"]), name
        read = mlx.dequantize(
            words,
            to_f32(dtype, _stored(dtype, recorded[f"{key}.scales"])),
            to_f32(dtype, _stored(dtype, recorded[f"{key}.biases"])),
            bits=width,
            dtype=dtype,
        )
        assert np.array_equal(_bits(from_f32(dtype, read)), recorded[f"{key}.values"])
    assert tried


def _stored(dtype: str, pattern: Any) -> Any:
    return (
        pattern if dtype == "BF16" else pattern.view({"F16": np.float16, "F32": np.float32}[dtype])
    )


def _bits(stored: Any) -> Any:
    return stored.view(np.uint16 if stored.itemsize == 2 else np.uint32)


def test_casts_as_torch_does_them(golden: Golden) -> None:
    recorded = golden("torch")
    floats = recorded["floats"].view(np.float32)
    assert np.array_equal(f32_to_bf16(floats), recorded["floats.bf16"])
    assert np.array_equal(f32_to_e4m3(floats), recorded["floats.e4m3"])
    every = e4m3_to_f32(np.arange(256, dtype=np.uint8))
    wanted = recorded["e4m3.bits"].view(np.float32)
    assert np.array_equal(every, wanted, equal_nan=True)


def test_fp8_as_transformers_reads_it(golden: Golden) -> None:
    recorded = golden("torch")
    scales = to_f32("BF16", recorded["fp8.scales"])
    values = fp8.dequantize(recorded["fp8.weight"], scales)
    assert np.array_equal(f32_to_bf16(values), recorded["fp8.values"])
    later = fp8.dequantize(recorded["fp8.weight"][100:200], scales, first_row=100)
    assert np.array_equal(later, values[100:200])


def test_compressed_tensors_as_the_library_reads_them(golden: Golden) -> None:
    recorded = golden("torch")
    row, group = (to_f32("BF16", recorded[name]) for name in ("row", "group"))
    values = compressed.dequantize_int8(recorded["int8.weight"], row)
    assert np.array_equal(f32_to_bf16(values), recorded["int8.values"])
    values = compressed.dequantize_fp8(recorded["fp8-channel.weight"], row)
    assert np.array_equal(f32_to_bf16(values), recorded["fp8-channel.values"])
    for width in (2, 3, 4, 5, 6, 7, 8):
        packed = recorded[f"packed.{width}"]
        assert np.array_equal(bits.pack(bits.unpack(packed, width, 256), width).view("i4"), packed)
        zeros = compressed.unpack_zero_points(recorded[f"packed.{width}.zeros"], width, 8)
        for name, zero in (("values", None), ("shifted", zeros)):
            values = compressed.dequantize_packed(
                packed, group, bits=width, columns=256, zero_points=zero
            )
            assert np.array_equal(f32_to_bf16(values), recorded[f"packed.{width}.{name}"]), width


def test_awq_as_compressed_tensors_reads_it(golden: Golden) -> None:
    recorded = golden("torch")
    scales = recorded["awq.scales"].astype(np.float32)
    values = awq.dequantize(recorded["awq.qweight"], recorded["awq.qzeros"], scales)
    assert np.array_equal(values.astype(np.float16), recorded["awq.values"])


@pytest.mark.parametrize("order", ["plain", "act"])
@pytest.mark.parametrize("width", [4, 8])
def test_gptq_as_gptqmodel_reads_it(golden: Golden, width: int, order: str) -> None:
    recorded = golden("gptq")
    arrays = [recorded[f"{width}.{order}.{n}"] for n in ("qweight", "qzeros", "scales", "g_idx")]
    arrays[2] = arrays[2].astype(np.float32)
    values = gptq.dequantize(*arrays, bits=width)
    assert np.array_equal(values.astype(np.float16), recorded[f"{width}.{order}.values"])
