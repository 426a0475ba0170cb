"""The tensors of a Qwen3 checkpoint and of its GGUF file: names, shapes, counts.

Shapes are in torch's order, [out, in]. Source of names and shapes: transformers ``models/qwen3``
and ``models/qwen3_moe``; of GGUF names and order: llama.cpp ``gguf-py/gguf/tensor_mapping.py``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from qwharf.types import Architecture

Role = Literal["embedding", "head", "norm", "attention", "ffn", "router", "expert"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: ``shape`` in torch's order."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def checkpoint_tensors(arch: Architecture, *, lm_head: bool | None = None) -> list[TensorSpec]:
    """The tensors of a Hugging Face checkpoint.

    Args:
        arch: the model.
        lm_head: whether ``lm_head.weight`` is stored; by default where it is not tied. The released
            0.6B and 1.7B store it although it is tied.
    """
    a, d = arch, arch.head_dim
    q, kv = a.num_attention_heads * d, a.num_key_value_heads * d
    out = [TensorSpec("model.embed_tokens.weight", (a.vocab_size, a.hidden_size), "embedding")]
    for i in range(a.num_hidden_layers):
        at = f"model.layers.{i}."
        attention = at + "self_attn."
        out += [
            TensorSpec(at + "input_layernorm.weight", (a.hidden_size,), "norm"),
            TensorSpec(attention + "q_proj.weight", (q, a.hidden_size), "attention"),
            TensorSpec(attention + "k_proj.weight", (kv, a.hidden_size), "attention"),
            TensorSpec(attention + "v_proj.weight", (kv, a.hidden_size), "attention"),
            TensorSpec(attention + "o_proj.weight", (a.hidden_size, q), "attention"),
            TensorSpec(attention + "q_norm.weight", (d,), "norm"),
            TensorSpec(attention + "k_norm.weight", (d,), "norm"),
            TensorSpec(at + "post_attention_layernorm.weight", (a.hidden_size,), "norm"),
        ]
        if a.is_moe:
            out.append(TensorSpec(at + "mlp.gate.weight", (a.num_experts, a.hidden_size), "router"))
            for e in range(a.num_experts):
                out += _ffn(
                    f"{at}mlp.experts.{e}.", a.hidden_size, a.moe_intermediate_size, "expert"
                )
        else:
            out += _ffn(at + "mlp.", a.hidden_size, a.intermediate_size, "ffn")
    out.append(TensorSpec("model.norm.weight", (a.hidden_size,), "norm"))
    if lm_head if lm_head is not None else not a.tie_word_embeddings:
        out.append(TensorSpec("lm_head.weight", (a.vocab_size, a.hidden_size), "head"))
    return out


def _ffn(at: str, hidden: int, inner: int, role: Role) -> list[TensorSpec]:
    return [
        TensorSpec(at + "gate_proj.weight", (inner, hidden), role),
        TensorSpec(at + "up_proj.weight", (inner, hidden), role),
        TensorSpec(at + "down_proj.weight", (hidden, inner), role),
    ]


def parameter_count(arch: Architecture) -> int:
    """All parameters; a tied embedding counts once. Layers are all alike, so one is counted."""
    rest, whole = (
        sum(t.elements for t in checkpoint_tensors(replace(_one_expert(arch), num_hidden_layers=n)))
        for n in (0, 1)
    )
    return rest + (whole - rest) * arch.num_hidden_layers + _other_experts(arch)


def non_embedding_parameter_count(arch: Architecture) -> int:
    """Parameters without the embedding and the head."""
    tables = 1 if arch.tie_word_embeddings else 2
    return parameter_count(arch) - tables * arch.vocab_size * arch.hidden_size


def active_parameter_count(arch: Architecture) -> int:
    """Parameters that take part in one token, embedding and head included."""
    if not arch.is_moe:
        return parameter_count(arch)
    idle = arch.num_experts - arch.num_experts_per_tok
    return parameter_count(arch) - idle * _expert_parameters(arch) * arch.num_hidden_layers


def expert_parameter_count(arch: Architecture) -> int:
    """Parameters of all experts of all layers."""
    return arch.num_experts * _expert_parameters(arch) * arch.num_hidden_layers


def _expert_parameters(arch: Architecture) -> int:
    return 3 * arch.hidden_size * arch.moe_intermediate_size


def _one_expert(arch: Architecture) -> Architecture:
    """Counting 12,032 expert tensors one by one would be slow, and they are all alike."""
    return replace(arch, num_experts=1) if arch.is_moe else arch


def _other_experts(arch: Architecture) -> int:
    if not arch.is_moe:
        return 0
    each = _expert_parameters(arch) + arch.hidden_size  # the expert and its row of the router
    return (arch.num_experts - 1) * each * arch.num_hidden_layers


# -------------------------------------------------------------------------------------------- GGUF

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.weight")
_EXPERT = re.compile(r"mlp\.experts\.\d+\.(gate|up|down)_proj")


def gguf_name(name: str) -> str | None:
    """The GGUF name of a checkpoint's tensor; ``None`` for one that is not of this architecture.

    Experts of a layer share a name: they are stacked.
    """
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    found = _LAYER.fullmatch(name)
    if found is None:
        return None
    layer, part = found.groups()
    expert = _EXPERT.fullmatch(part)
    if expert is not None:
        return f"blk.{layer}.ffn_{expert[1]}_exps.weight"
    mapped = _LAYER_NAMES.get(part)
    return None if mapped is None else f"blk.{layer}.{mapped}.weight"


def gguf_tensors(arch: Architecture) -> list[TensorSpec]:
    """The tensors of a GGUF file, experts stacked as [experts, out, in], in the order written.

    That is the order of ``llama-quantize``: what belongs to no layer first, then layer by layer,
    by name. A tied head is left out; the loader reuses the embedding.
    """
    out: dict[str, TensorSpec] = {}
    for spec in checkpoint_tensors(_one_expert(arch)):
        name = gguf_name(spec.name)
        if name is None:
            raise ValueError(f"{spec.name} has no GGUF name")
        shape = spec.shape
        if spec.role == "router":
            shape = (arch.num_experts, arch.hidden_size)
        elif spec.role == "expert":
            shape = (arch.num_experts, *spec.shape)
        out[name] = TensorSpec(name, shape, spec.role)
    return sorted(out.values(), key=_place)


def _place(spec: TensorSpec) -> tuple[int, str]:
    parts = spec.name.split(".")
    return (int(parts[1]) if parts[0] == "blk" else -1), spec.name
