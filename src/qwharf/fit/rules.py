"""What runs where: platforms, formats and kinds of hardware, as data.

Sources, read in the named versions:
vLLM 0.33.0 ``model_executor/layers/quantization/*`` (minimum compute capabilities; GGUF is gone),
SGLang 0.5.23 ``srt/server_args.py`` (names of quantisations), Ollama 0.33 ``server/create.go`` and
LM Studio's documentation (GGUF everywhere, MLX on Apple silicon), mlx-lm 0.32.2; sglang issue
12887 (block FP8 mixtures on Ampere).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from qwharf.types import Format, Gpu, KvCacheType, Model

Device = Literal["cpu", "nvidia", "amd", "apple"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformInfo:
    """One platform as far as planning is concerned."""

    name: str
    devices: frozenset[Device]
    containers: frozenset[str]
    kv_cache_types: tuple[KvCacheType, ...]
    """The first is the default."""
    systems: frozenset[str] | None = None
    """Operating systems it runs on; ``None``: Linux, macOS and Windows."""
    driven: bool = False
    """Whether ``up`` can start it today."""
    stretches: bool = False
    """Whether YaRN can be switched on for contexts beyond the model's own."""


_ANYWHERE: frozenset[Device] = frozenset({"cpu", "nvidia", "amd", "apple"})
_LLAMA_KV: tuple[KvCacheType, ...] = ("f16", "bf16", "q8_0", "q4_0")

PLATFORMS: dict[str, PlatformInfo] = {
    p.name: p
    for p in (
        PlatformInfo(
            name="llama.cpp",
            devices=_ANYWHERE,
            containers=frozenset({"gguf"}),
            kv_cache_types=_LLAMA_KV,
            driven=True,
            stretches=True,
        ),
        PlatformInfo(
            name="vllm",
            devices=frozenset({"nvidia"}),
            containers=frozenset({"safetensors"}),
            systems=frozenset({"Linux"}),
            kv_cache_types=("bf16", "f16", "fp8"),
            stretches=True,
        ),
        PlatformInfo(
            name="sglang",
            devices=frozenset({"nvidia"}),
            containers=frozenset({"safetensors"}),
            systems=frozenset({"Linux"}),
            kv_cache_types=("bf16", "f16", "fp8"),
            stretches=True,
        ),
        PlatformInfo(
            name="ollama",
            devices=_ANYWHERE,
            containers=frozenset({"gguf"}),
            kv_cache_types=("f16", "q8_0", "q4_0"),
        ),
        PlatformInfo(
            name="lmstudio",
            devices=_ANYWHERE,
            containers=frozenset({"gguf", "mlx"}),
            kv_cache_types=("f16", "q8_0", "q4_0"),
        ),
        PlatformInfo(
            name="mlx",
            devices=frozenset({"apple"}),
            containers=frozenset({"mlx"}),
            kv_cache_types=("bf16", "f16"),
        ),
    )
}
"""In the order of preference where all else is equal: those that ``up`` can start first."""

ALIASES = {
    "llama-cpp": "llama.cpp",
    "llama_cpp": "llama.cpp",
    "llamacpp": "llama.cpp",
    "embedded": "llama.cpp",
    "lm-studio": "lmstudio",
    "lm_studio": "lmstudio",
    "mlx-lm": "mlx",
    "mlx_lm": "mlx",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """The least NVIDIA compute capability for a format on a platform, and where it gets better."""

    least: tuple[int, int]
    native: tuple[int, int] | None = None
    below_native: str = ""
    dense_only_below: tuple[int, int] | None = None
    """Below this capability, mixtures of experts do not run."""


_BF16 = Need(least=(7, 0), native=(8, 0), below_native="computes in float16: no bfloat16 here")
_SGLANG_BF16 = Need(least=(7, 5), native=(8, 0), below_native=_BF16.below_native)
_FP8_SLOW = "FP8 weights are unpacked to 16 bit as they are used; native from 8.9"

NEEDS: dict[tuple[str, str], Need] = {
    ("vllm", "bf16"): _BF16,
    ("vllm", "f16"): Need(least=(7, 0)),
    ("vllm", "fp8"): Need(least=(7, 5), native=(8, 9), below_native=_FP8_SLOW),
    ("vllm", "awq"): Need(least=(7, 5)),
    ("vllm", "gptq-int4"): Need(least=(6, 0)),
    ("vllm", "gptq-int8"): Need(least=(6, 0)),
    ("sglang", "bf16"): _SGLANG_BF16,
    ("sglang", "f16"): Need(least=(7, 5)),
    ("sglang", "fp8"): Need(
        least=(8, 0), native=(8, 9), below_native=_FP8_SLOW, dense_only_below=(8, 9)
    ),
    ("sglang", "awq"): Need(least=(7, 5)),
    ("sglang", "gptq-int4"): Need(least=(7, 5)),
    ("sglang", "gptq-int8"): Need(least=(7, 5)),
}
"""(platform, quantisation of safetensors). What is missing here is not offered."""

MAKEABLE = (
    "bf16", "f16", "f32", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s",
    "q4_1", "q4_0", "iq4_nl", "iq4_xs", "mxfp4_moe", "q3_k_l", "q3_k_m", "q3_k_s", "iq3_m",
    "iq3_s", "q2_k",
)  # fmt: skip
"""The GGUF quantisations that can be made here from 16-bit weights; a test holds this against
what the converter can do."""
OFFERED = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "bf16")
"""Those that are shown without being asked for."""

FIDELITY: dict[str, int] = {
    **dict.fromkeys(("bf16", "f16", "f32", "q8_0", "fp8", "gptq-int8", "8bit"), 5),
    **dict.fromkeys(("w8a8", "fp8-channel"), 5),
    **dict.fromkeys(("q6_k", "6bit"), 4),
    **dict.fromkeys(("q5_k_m", "q5_k_s", "q5_0", "q5_1", "5bit"), 3),
    **dict.fromkeys(("q4_k_m", "q4_k_s", "q4_0", "q4_1", "iq4_nl", "iq4_xs", "mxfp4_moe"), 2),
    **dict.fromkeys(("awq", "gptq-int4", "w4a16", "4bit"), 2),
    **dict.fromkeys(("q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "3bit"), 1),
}
"""How near to the released weights: 5 is 8 bits and more, 0 below 3 bits. MLX's are named without
their groups."""
USUAL_FIDELITY = 2
"""Four bits: what is lost below is noticed."""


def fidelity(format: Format) -> int:
    """Rank of the format's nearness to the released weights, 0 to 5."""
    return FIDELITY.get(re.sub(r"-g\d+$", "", format.quantization), 0)


def platform_name(text: str) -> str | None:
    """The platform that ``text`` names; ``None`` if there is none."""
    plain = text.strip().lower()
    name = ALIASES.get(plain, plain)
    return name if name in PLATFORMS else None


def refusal(
    platform: str, format: Format, model: Model, gpu: Gpu | None, system: str = "Linux"
) -> str | None:
    """Why ``platform`` cannot run ``format`` on a card like ``gpu``; ``None``: it can."""
    info = PLATFORMS[platform]
    if info.systems is not None and system not in info.systems:
        return f"{platform} runs on {' and '.join(sorted(info.systems))} only"
    if "cpu" not in info.devices and (gpu is None or gpu.vendor not in info.devices):
        return f"{platform} needs {'Apple silicon' if platform == 'mlx' else 'an NVIDIA GPU'}"
    if format.container not in info.containers:
        return f"{platform} runs {' and '.join(sorted(info.containers))} weights"
    if format.container == "mlx" and (gpu is None or gpu.vendor != "apple"):
        return "MLX weights need Apple silicon"
    if gpu is None or "cpu" in info.devices or platform == "mlx":
        return None
    need = NEEDS.get((platform, format.quantization))
    if need is None:
        return f"{platform} is not known to run {format}"
    if gpu.compute_capability is None:  # cannot be judged: not refused
        return None
    has = ".".join(map(str, gpu.compute_capability))
    if gpu.compute_capability < need.least:
        wanted = ".".join(map(str, need.least))
        return f"{format} on {platform} needs compute capability {wanted}; {gpu.name} has {has}"
    if (
        need.dense_only_below is not None
        and model.architecture.is_moe
        and gpu.compute_capability < need.dense_only_below
    ):
        return f"{platform} does not run {format} mixtures of experts on {gpu.name} ({has})"
    return None


def caution(platform: str, format: Format, gpu: Gpu | None) -> str | None:
    """What is worth knowing of a combination that runs."""
    need = NEEDS.get((platform, format.quantization))
    if need is None or need.native is None or gpu is None or gpu.compute_capability is None:
        return None
    return need.below_native if gpu.compute_capability < need.native else None


# ----------------------------------------------------------------------------------------- origin


def formats_of(model: Model) -> tuple[Format, ...]:
    """The formats to consider for a model when none is asked for."""
    found = [r.format for r in model.repositories]
    if model.path_format is not None:
        found.append(model.path_format)
    if can_make(model):
        found += [Format("gguf", q) for q in OFFERED]
    return tuple(dict.fromkeys(found))


def can_make(model: Model) -> bool:
    """Whether 16-bit weights can be had, from which GGUF files are made."""
    if model.path_format is not None:
        return model.path_format.quantization in ("bf16", "f16", "f32")
    return any(str(r.format) == "safetensors:bf16" for r in model.repositories)


def origin(model: Model, format: Format) -> str | None:
    """Where weights of that format come from, in words; ``None``: they cannot be had."""
    if model.path_format == format:
        return f"the weights as they lie at {model.path}"
    for repository in model.repositories:
        if repository.format == format:
            by = "published by Qwen" if repository.official else "published"
            return f"{by} as {repository.repo_id}"
    if format.container == "gguf" and format.quantization in MAKEABLE and can_make(model):
        return "made here from the 16-bit weights"
    return None
