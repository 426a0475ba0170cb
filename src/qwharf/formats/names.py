"""The weight formats by the names people use for them."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache

from qwharf.errors import UsageError
from qwharf.types import Format


@dataclass(frozen=True, slots=True)
class FormatInfo:
    """What a format is."""

    description: str
    bits_per_weight: float | None
    """Of the quantised matrices; mixes are somewhat above it. Scales and zero points are counted
    in. ``None`` where the name does not tell."""


def _gguf(quantization: str, description: str, bits: float) -> tuple[Format, FormatInfo]:
    return Format("gguf", quantization), FormatInfo(description, bits)


def _mlx(bits: int, group: int) -> tuple[Format, FormatInfo]:
    name = f"{bits}bit" if group == 64 else f"{bits}bit-g{group}"
    text = f"{bits} bit for Apple's MLX, groups of {group}"
    return Format("mlx", name), FormatInfo(text, bits + 32 / group)


FORMATS: dict[Format, FormatInfo] = dict(
    [
        (Format("safetensors", "bf16"), FormatInfo("the released weights, 16 bit", 16.0)),
        (Format("safetensors", "f16"), FormatInfo("half precision", 16.0)),
        (Format("safetensors", "f32"), FormatInfo("single precision", 32.0)),
        (
            Format("safetensors", "fp8"),
            FormatInfo("8-bit floats, a scale per 128 x 128 block", 8.0 + 16 / 128**2),
        ),
        (
            Format("safetensors", "awq"),
            FormatInfo("4 bit, groups of 128, with zero points", 4.15625),
        ),
        (
            Format("safetensors", "compressed-tensors"),
            FormatInfo("made by llm-compressor; config.json tells how", None),
        ),
        (Format("safetensors", "w4a16"), FormatInfo("4 bit, groups of 128, for vLLM", 4.125)),
        (Format("safetensors", "w8a8"), FormatInfo("8 bit, activations too, for vLLM", 8.0)),
        (
            Format("safetensors", "fp8-channel"),
            FormatInfo("8-bit floats, a scale per output, for vLLM", 8.0),
        ),
        (Format("safetensors", "gptq-int4"), FormatInfo("4 bit, groups of 128", 4.15625)),
        (Format("safetensors", "gptq-int8"), FormatInfo("8 bit, groups of 128", 8.1875)),
        (Format("mlx", "bf16"), FormatInfo("16 bit for Apple's MLX", 16.0)),
        *(_mlx(bits, group) for bits in (8, 6, 5, 4, 3, 2) for group in (64, 128, 32)),
        _gguf("bf16", "16 bit for llama.cpp", 16.0),
        _gguf("f16", "half precision for llama.cpp", 16.0),
        _gguf("f32", "single precision for llama.cpp", 32.0),
        _gguf("q8_0", "8 bit; as good as the original", 8.5),
        _gguf("q6_k", "6 bit; hardly distinguishable", 6.5625),
        _gguf("q5_k_m", "5 bit mix", 5.5),
        _gguf("q5_k_s", "5 bit", 5.5),
        _gguf("q5_0", "5 bit, older", 5.5),
        _gguf("q5_1", "5 bit, older", 6.0),
        _gguf("q4_k_m", "4 bit mix; the usual choice", 4.5),
        _gguf("q4_k_s", "4 bit", 4.5),
        _gguf("q4_0", "4 bit, older", 4.5),
        _gguf("q4_1", "4 bit, older", 5.0),
        _gguf("iq4_nl", "4 bit, non-linear", 4.5),
        _gguf("iq4_xs", "4 bit, small", 4.25),
        _gguf("mxfp4_moe", "4-bit experts, 8 bit elsewhere", 4.25),
        _gguf("q3_k_l", "3 bit, large mix", 3.4375),
        _gguf("q3_k_m", "3 bit mix", 3.4375),
        _gguf("q3_k_s", "3 bit", 3.4375),
        _gguf("iq3_m", "3 bit mix", 3.4375),
        _gguf("iq3_s", "3 bit", 3.4375),
        _gguf("iq3_xs", "3 bit, small", 3.4375),
        _gguf("iq3_xxs", "3 bit, smallest", 3.0625),
        _gguf("q2_k", "2 bit mix", 2.625),
        _gguf("q2_k_s", "2 bit", 2.625),
        _gguf("iq2_m", "2 bit mix", 2.5625),
        _gguf("iq2_s", "2 bit", 2.5625),
        _gguf("iq2_xs", "2 bit, small", 2.3125),
        _gguf("iq2_xxs", "2 bit, smallest", 2.0625),
        _gguf("iq1_m", "1 bit mix", 1.75),
        _gguf("iq1_s", "1 bit", 1.5625),
    ]
)
"""Every format that qwharf has a name for; what can be made or run of them is told elsewhere."""

ALIASES: dict[str, Format] = {
    "gguf": Format("gguf", "q4_k_m"),
    "safetensors": Format("safetensors", "bf16"),
    "hf": Format("safetensors", "bf16"),
    "mlx": Format("mlx", "4bit"),
    "fp16": Format("safetensors", "f16"),
    "fp32": Format("safetensors", "f32"),
    "gguf:fp16": Format("gguf", "f16"),
    "safetensors:fp16": Format("safetensors", "f16"),
    "int4": Format("safetensors", "gptq-int4"),
    "int8": Format("safetensors", "gptq-int8"),
    "q8": Format("gguf", "q8_0"),
    "q6": Format("gguf", "q6_k"),
    "q5": Format("gguf", "q5_k_m"),
    "q4": Format("gguf", "q4_k_m"),
    "mxfp4": Format("gguf", "mxfp4_moe"),
    "q3": Format("gguf", "q3_k_m"),
    "q2": Format("gguf", "q2_k"),
    "iq4": Format("gguf", "iq4_xs"),
    "q5_k": Format("gguf", "q5_k_m"),
    "q4_k": Format("gguf", "q4_k_m"),
    "q3_k": Format("gguf", "q3_k_m"),
    "gptq": Format("safetensors", "gptq-int4"),
    "gptq:4": Format("safetensors", "gptq-int4"),
    "gptq:8": Format("safetensors", "gptq-int8"),
    "bf16": Format("safetensors", "bf16"),
    "f16": Format("safetensors", "f16"),
    "f32": Format("safetensors", "f32"),
}


MAX_NAME_CHARACTERS = 64
USUAL = "q4_k_m, q8_0, bf16, fp8, awq, gptq, w4a16, w8a8, mlx:4"


def parse_format(text: str) -> Format:
    """The format that ``text`` names: ``gguf:q4_k_m``, ``Q8_0``, ``fp8``, ``mlx:4``, ``gguf``.

    Upper case, and ``-``, ``_``, ``.`` or nothing for one another, make no difference.

    Raises:
        UsageError: there is none; ``facts["suggestions"]`` has the nearest names.
    """
    key = _plain(text)
    found = _spellings().get(key) if len(text) <= MAX_NAME_CHARACTERS else None
    if found is not None:
        return found
    close = difflib.get_close_matches(key[:MAX_NAME_CHARACTERS], _spellings(), n=5, cutoff=0.6)
    suggestions = list(dict.fromkeys(str(_spellings()[c]) for c in close))[:3]
    raise UsageError(
        text[:MAX_NAME_CHARACTERS],
        found="no known weight format",
        expected=f"a weight format such as {USUAL}",
        hint=f"did you mean {' or '.join(suggestions)}?"
        if suggestions
        else "docs/formats.md has them all",
        suggestions=suggestions,
    )


def _plain(text: str) -> str:
    return re.sub(r"[-_.:/\s]+", "", text.lower())


@cache
def _spellings() -> dict[str, Format]:
    """Every accepted spelling, in plain form."""
    out = {_plain(name): known for name, known in ALIASES.items()}
    for known in FORMATS:
        out.setdefault(_plain(str(known)), known)
        out.setdefault(_plain(known.quantization), known)
        if known.container == "mlx":
            out.setdefault(_plain(str(known)).replace("bit", ""), known)  # mlx:4, mlx:8-g32
    return out
