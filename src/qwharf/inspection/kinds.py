"""What a tensor is, whatever its container calls it.

The kinds have GGUF's names (``attn_q``, ``ffn_down_exps``), for these are short and tell dense
layers and experts apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qwharf.formats.tensors import gguf_name

KINDS = (
    "token_embd", "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm",
    "attn_k_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_inp", "ffn_gate_exps",
    "ffn_up_exps", "ffn_gate_up_exps", "ffn_down_exps", "output_norm", "output", "other",
)  # fmt: skip
"""In the order of the computation."""

PARTS = (
    "weight", "bias", "qweight", "qzeros", "scales", "biases", "g_idx", "weight_packed",
    "weight_scale", "weight_scale_inv", "weight_shape", "weight_zero_point", "weight_g_idx",
    "input_scale", "lora_A", "lora_B", "lora_a", "lora_b", "lora_A.weight", "lora_B.weight",
    "lora_A.default.weight", "lora_B.default.weight", "weight.lora_a", "weight.lora_b",
    "weight.in_sum2", "weight.counts",
)  # fmt: skip
"""What one matrix may consist of, behind its module's name."""

_PART = re.compile(r"\.(?:" + "|".join(sorted(map(re.escape, PARTS), key=len)[::-1]) + r")$")
_GGUF = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<kind>[a-z_]+)")
_STACKED = re.compile(
    r"model\.layers\.(\d+)\.mlp\.(?:switch_mlp|experts)\.(gate|up|gate_up|down)_proj"
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in the model."""

    kind: str
    layer: int | None


def place_of(name: str) -> Place:
    """The kind and layer of a tensor of a checkpoint, a GGUF file, an MLX folder or an adapter."""
    module = module_of(name)
    stacked = _STACKED.fullmatch(module)
    if stacked is not None:
        return Place(f"ffn_{stacked[2]}_exps", int(stacked[1]))
    mapped = gguf_name(f"{module}.weight")
    found = _GGUF.fullmatch((mapped or module).removesuffix(".weight"))
    if found is not None and found["kind"] in KINDS:
        return Place(found["kind"], None if found["layer"] is None else int(found["layer"]))
    layer = _LAYER.match(module)
    return Place("other", int(layer[1]) if layer else None)


def module_of(name: str) -> str:
    """The matrix that a stored tensor is a part of, by its module's name."""
    return _PART.sub("", name).removeprefix("base_model.model.")


def unstacked(module: str, experts: int) -> list[str]:
    """The modules of a checkpoint that ``module`` holds: itself, or all experts of a layer."""
    found = _STACKED.fullmatch(module)
    if found is None:
        return [module]
    layer, which = found.groups()
    parts = ("gate", "up") if which == "gate_up" else (which,)
    at = f"model.layers.{layer}.mlp.experts."
    return [f"{at}{e}.{part}_proj" for e in range(experts) for part in parts]


def order_of(kind: str) -> int:
    """The kind's place in :data:`KINDS`."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
