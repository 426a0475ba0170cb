"""Formats as planning sees them: which can be had of a model, whence, and how faithful they are.

What runs where is data of its own: :mod:`qwharf.compatibility`.
"""

from __future__ import annotations

import re

from qwharf.types import Format, Model


def _formats(container: str, *quantizations: str) -> tuple[Format, ...]:
    return tuple(Format(container, q) for q in quantizations)  # type: ignore[arg-type]


_GROUPS = ("", "-g128", "-g32")
MAKEABLE = frozenset(
    _formats(
        "gguf", "bf16", "f16", "f32", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m",
        "q4_k_s", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "mxfp4_moe", "q3_k_l", "q3_k_m", "q3_k_s",
        "iq3_m", "iq3_s", "q2_k",
    )
    + _formats(
        "safetensors", "bf16", "f16", "f32", "fp8", "fp8-channel", "awq", "gptq-int4", "gptq-int8",
        "w4a16", "w8a8",
    )
    + _formats("mlx", "bf16", *(f"{b}bit{g}" for b in (8, 6, 5, 4, 3, 2) for g in _GROUPS))
)  # fmt: skip
"""What can be made here from 16-bit weights; a test holds this against the converter."""

OFFERED = (
    *_formats("gguf", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "bf16"),
    *_formats("mlx", "8bit", "6bit", "4bit"),
)
"""Those of them that are shown without being asked for. Rounding to 8 bits and better mixes lose
little; 4-bit formats of vLLM and SGLang want calibration, so only published ones are shown."""

FIDELITY: dict[str, int] = {
    **dict.fromkeys(("bf16", "f16", "f32", "q8_0", "fp8", "fp8-channel", "w8a8", "gptq-int8"), 5),
    "8bit": 5,
    **dict.fromkeys(("q6_k", "6bit"), 4),
    **dict.fromkeys(("q5_k_m", "q5_k_s", "q5_0", "q5_1", "5bit"), 3),
    **dict.fromkeys(("q4_k_m", "q4_k_s", "q4_0", "q4_1", "iq4_nl", "iq4_xs", "mxfp4_moe"), 2),
    **dict.fromkeys(("awq", "gptq-int4", "w4a16", "4bit"), 2),
    **dict.fromkeys(("q3_k_l", "q3_k_m", "q3_k_s", "iq3_m", "iq3_s", "iq3_xs", "3bit"), 1),
}
"""How near to the released weights: 5 is 8 bits and more, 0 below 3 bits. MLX's stand for all
sizes of their groups."""
USUAL_FIDELITY = 2
"""Four bits: what is lost below is noticed."""


def fidelity(format: Format) -> int:
    """Rank of the format's nearness to the released weights, 0 to 5."""
    return FIDELITY.get(re.sub(r"-g\d+$", "", format.quantization), 0)


def formats_of(model: Model) -> tuple[Format, ...]:
    """The formats to consider for a model when none is asked for."""
    found = [r.format for r in model.repositories]
    if model.path_format is not None:
        found.append(model.path_format)
    if can_make(model):
        found += OFFERED
    return tuple(dict.fromkeys(found))


def can_make(model: Model) -> bool:
    """Whether 16-bit weights can be had, from which other formats are made."""
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
    if format in MAKEABLE and can_make(model):
        return "made here from the 16-bit weights"
    return None


def is_split(model: Model, format: Format) -> bool:
    """Whether GGUF weights of that format will lie in several files."""
    if format.container != "gguf":
        return False
    if model.path is not None and model.path_format == format:
        return _PART.search(model.path.name) is not None
    for repository in model.repositories:
        if repository.format == format:
            # Where Qwen's files are not listed, their number was left to the hub.
            return len(repository.files) != 1 if repository.official else False
    return False


_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
