"""Record what the formats' own libraries make, for the tests to compare with.

Run by hand, each part in an environment of its own; the tests need none of these packages:

    pip install gguf numpy                              && python make_goldens.py gguf
    pip install "mlx[cpu]" numpy                        && python make_goldens.py mlx
    pip install torch numpy transformers compressed-tensors
                                                        && python make_goldens.py torch
    pip install gptqmodel                               && python make_goldens.py gptq

Recorded with gguf 0.19.0, mlx 0.32.4, torch 2.13.0, transformers 5.24.0, compressed-tensors 0.20.0
and gptqmodel 7.7.0. Narrow floats are kept as bit patterns.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "goldens"
ROWS, COLUMNS = 8, 256


def sample(seed: int, rows: int = ROWS, columns: int = COLUMNS) -> Any:
    """Weights with some odd rows: zeros, one sign, a spike, tiny ones, huge ones."""
    values = np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)
    values[1] = 0
    values[2] = np.abs(values[2])
    values[3] = -np.abs(values[3])
    values[4, 7] = 3.5
    values[5] *= np.float32(1e-8)
    values[6] *= np.float32(1e4)
    return values


def save(name: str, arrays: dict[str, Any]) -> None:
    """Write one file, the same bytes each time."""
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)


def make_gguf() -> None:
    """Random blocks of every type, and what the gguf package reads in them."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    names = (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ2_S "
        "IQ3_XXS IQ3_S IQ1_S IQ1_M IQ4_NL IQ4_XS MXFP4"
    )
    out: dict[str, Any] = {}
    rng = np.random.default_rng(11)
    for name in names.split():
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (2, 256 // elements * size), dtype=np.uint8)
        if name in ("F32", "F16", "BF16"):
            raw[:, size - 1 :: size] &= 0x3F  # no exponent of an infinity
        values = np.full(1, np.inf, np.float32)
        while not np.isfinite(values).all():
            if elements > 1:
                raw = rng.integers(0, 256, raw.shape, dtype=np.uint8)
            with np.errstate(all="ignore"):
                values = dequantize(raw, kind).astype(np.float32)
        out[f"{name}.raw"] = raw.reshape(-1)
        out[f"{name}.bits"] = values.reshape(-1).view(np.uint32)
    save("gguf", out)


def make_mlx() -> None:
    """Quantised and dequantised by MLX itself."""
    import mlx.core as mx

    def bits(array: Any) -> Any:
        return np.array(array.view(mx.uint16) if array.dtype.size == 2 else array.view(mx.uint32))

    out: dict[str, Any] = {}
    for dtype, kind in (("BF16", mx.bfloat16), ("F16", mx.float16), ("F32", mx.float32)):
        weight = mx.array(sample(5)).astype(kind)
        out[f"{dtype}.weight"] = bits(weight)
        for n in (2, 3, 4, 5, 6, 8):
            for group in (32, 64, 128):
                if dtype != "BF16" and (n, group) not in ((4, 64), (6, 32)):
                    continue
                key = f"{dtype}.{n}.{group}"
                words, scales, biases = mx.quantize(weight, group_size=group, bits=n)
                values = mx.dequantize(words, scales, biases, group_size=group, bits=n)
                out[f"{key}.words"] = np.array(words)
                out[f"{key}.scales"] = bits(scales)
                out[f"{key}.biases"] = bits(biases)
                out[f"{key}.values"] = bits(values)
    save("mlx", out)


def make_torch() -> None:
    """Casts by torch; dequantised by transformers and compressed-tensors."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rng = np.random.default_rng(3)
    t = torch.from_numpy

    def u16(tensor: Any) -> Any:
        return tensor.contiguous().view(torch.uint16).numpy()

    out: dict[str, Any] = {}
    halves = np.arange(0, 65536, 7, dtype=np.uint32) << 16
    floats = (halves | rng.choice([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], halves.size)).astype(
        "<u4"
    )
    floats = floats.view(np.float32)
    floats = floats[np.isfinite(floats)]
    out["floats"] = floats.view(np.uint32)
    out["floats.bf16"] = u16(t(floats).to(torch.bfloat16))
    narrow = t(floats).clamp(-448, 448).to(torch.float8_e4m3fn)
    out["floats.e4m3"] = narrow.view(torch.uint8).numpy()
    every = t(np.arange(256, dtype=np.uint8))
    out["e4m3.bits"] = every.view(torch.float8_e4m3fn).float().numpy().view(np.uint32)

    fp8 = rng.integers(0, 256, (256, 128), dtype=np.uint8)
    fp8[(fp8 & 0x7F) == 0x7F] = 1
    scales = t(rng.uniform(1e-4, 1e-2, (2, 1)).astype(np.float32)).to(torch.bfloat16)
    reader = Fp8Dequantize.__new__(Fp8Dequantize)
    out["fp8.weight"], out["fp8.scales"] = fp8, u16(scales)
    values = reader._dequantize_one(t(fp8).view(torch.float8_e4m3fn), scales)
    out["fp8.values"] = u16(values)

    row = t(rng.uniform(1e-4, 1e-2, (8, 1)).astype(np.float32)).to(torch.bfloat16)
    group = t(rng.uniform(1e-4, 1e-2, (8, 2)).astype(np.float32)).to(torch.bfloat16)
    out["row"], out["group"] = u16(row), u16(group)
    channel = {"strategy": "channel", "num_bits": 8, "symmetric": True}
    whole = rng.integers(-128, 128, (8, 64)).astype(np.int8)
    out["int8.weight"] = whole
    args = QuantizationArgs(type="int", **channel)
    out["int8.values"] = u16(dequantize(t(whole), row, None, args=args))
    args = QuantizationArgs(type="float", **channel)
    part = fp8[:8, :64].copy()
    out["fp8-channel.weight"] = part
    out["fp8-channel.values"] = u16(
        dequantize(t(part).view(torch.float8_e4m3fn), row, None, args=args)
    )
    for bits in (2, 3, 4, 5, 6, 7, 8):
        half = 1 << (bits - 1)
        numbers = t(rng.integers(-half, half, (8, 256)).astype(np.int8))
        zeros = t(rng.integers(-half, half, (8, 2)).astype(np.int8))
        out[f"packed.{bits}"] = pack_to_int32(numbers, bits).numpy()
        out[f"packed.{bits}.zeros"] = pack_to_int32(zeros, bits, packed_dim=0).numpy()
        for name, zero in (("values", None), ("shifted", zeros)):
            args = QuantizationArgs(
                num_bits=bits, type="int", strategy="group", group_size=128, symmetric=zero is None
            )
            out[f"packed.{bits}.{name}"] = u16(dequantize(numbers, group, zero, args=args))

    qweight = t(rng.integers(-(2**31), 2**31, (256, 4), dtype=np.int64).astype(np.int32))
    qzeros = t(rng.integers(-(2**31), 2**31, (2, 4), dtype=np.int64).astype(np.int32))
    scale = t(rng.uniform(1e-4, 1e-2, (2, 32)).astype(np.float16))
    out["awq.qweight"], out["awq.qzeros"] = qweight.numpy(), qzeros.numpy()
    out["awq.scales"] = scale.numpy()
    args = QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=128, symmetric=False
    )
    found = AutoAWQConverter()._convert_gemm_module(qweight, scale, qzeros)
    out["awq.values"] = dequantize(*found, args=args).numpy()
    save("torch", out)


def make_gptq() -> None:
    """Packed numbers of 4 and 8 bits, in order and not, and the weights GPTQModel reads in them."""
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    rng = np.random.default_rng(9)
    out: dict[str, Any] = {}
    for bits in (4, 8):
        for order in ("plain", "act"):
            inputs, outputs, group = 128, 32, 32
            module = TorchLinear(
                bits=bits, group_size=group, sym=False, desc_act=order == "act",
                in_features=inputs, out_features=outputs, bias=False,
            )  # fmt: skip
            groups = np.arange(inputs, dtype=np.int32) // group
            if order == "act":
                rng.shuffle(groups)
            # Version 1: no stored zero point may be the largest number, or adding one carries over.
            zeros = rng.integers(0, (1 << bits) - 1, (4, outputs)).astype(np.uint32)
            words = np.zeros((4, outputs * bits // 32), np.uint32)
            for n in range(outputs):
                words[:, n * bits // 32] |= zeros[:, n] << np.uint32(n * bits % 32)
            arrays = {
                "qweight": rng.integers(
                    -(2**31), 2**31, (inputs * bits // 32, outputs), dtype=np.int64
                ).astype(np.int32),
                "qzeros": words.view(np.int32),
                "scales": rng.uniform(1e-4, 1e-2, (4, outputs)).astype(np.float16),
                "g_idx": groups,
            }
            key = f"{bits}.{order}"
            out |= {f"{key}.{name}": array.copy() for name, array in arrays.items()}
            for name, array in arrays.items():
                getattr(module, name).data = torch.from_numpy(array.copy())
            convert_gptq_v1_to_v2_format_module(module, bits=bits, pack_dtype=torch.int32)
            module.post_init()
            with torch.no_grad():
                values = module.dequantize_weight().to(torch.float16)
            out[f"{key}.values"] = values.T.contiguous().numpy()
    save("gptq", out)


if __name__ == "__main__":
    {"gguf": make_gguf, "mlx": make_mlx, "torch": make_torch, "gptq": make_gptq}[sys.argv[1]]()
