"""The ``config.json`` of a checkpoint: the model's numbers and the format of its weights.

Numbers are read, never assumed: the defaults of transformers' classes match no released Qwen3, so a
missing key is an error. Both spellings are understood, the Hub's (``rope_theta``, ``torch_dtype``,
``num_experts``) and that of transformers 5 (``rope_parameters``, ``dtype``, ``num_local_experts``).
``auto_map`` and the like, which name code to run, are never looked at.

Source: transformers ``models/qwen3``, ``models/qwen3_moe`` (``configuration_*.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qwharf.errors import InvalidFile, UnsupportedArchitecture
from qwharf.types import Architecture, Format

ARCHITECTURES = {"Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe"}
MAX_LAYERS = 1024
MAX_EXPERTS = 4096
MAX_ROWS = 1 << 20
"""Of the vocabulary. All far above any Qwen3: what is counted or allocated by them stays small."""
MAX_REAL = 3.4e38
"""What a 32-bit float holds, in which GGUF files and engines keep them."""


def architecture_from_config(config: Mapping[str, Any], *, file: str) -> Architecture:
    """The numbers of a ``config.json``.

    Args:
        config: its content.
        file: its name, for errors.

    Raises:
        UnsupportedArchitecture: not a Qwen3; the architecture found is named.
        InvalidFile: a number is missing or impossible.
    """
    moe = _is_moe(config, file)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise _bad(file, "rope_parameters", rope, "an object")
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling not in ("default", "yarn"):
        raise _bad(file, "rope_type", scaling, "default or yarn; others would be lost")
    yarn = scaling == "yarn"
    numbers = {
        key: _whole(config, key, file)
        for key in (
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        )
    }
    numbers["vocab_size"] = _whole(config, "vocab_size", file, MAX_ROWS)
    numbers["num_hidden_layers"] = _whole(config, "num_hidden_layers", file, MAX_LAYERS)
    if moe:
        experts = "num_experts" if "num_experts" in config else "num_local_experts"
        numbers["num_experts"] = count = _whole(config, experts, file, MAX_EXPERTS)
        numbers["num_experts_per_tok"] = _whole(config, "num_experts_per_tok", file, count)
        numbers["moe_intermediate_size"] = _whole(config, "moe_intermediate_size", file)
    heads, kv_heads = numbers["num_attention_heads"], numbers["num_key_value_heads"]
    if heads % kv_heads:
        raise _bad(file, "num_attention_heads", heads, f"a multiple of {kv_heads} KV heads")
    theta = config.get("rope_theta", rope.get("rope_theta"))
    tied = config.get("tie_word_embeddings")
    if not isinstance(tied, bool):
        raise _bad(file, "tie_word_embeddings", tied, "true or false")
    _check_graph(config, file, moe=moe)
    return Architecture(
        model_type="qwen3_moe" if moe else "qwen3",
        # Present, but unused, in a mixture of experts.
        intermediate_size=_whole(config, "intermediate_size", file),
        tie_word_embeddings=tied,
        rope_theta=_real(theta, "rope_theta", file),
        rms_norm_eps=_real(config.get("rms_norm_eps"), "rms_norm_eps", file),
        bos_token_id=_token(config.get("bos_token_id")),
        eos_token_id=_token(config.get("eos_token_id")),
        yarn_factor=_real(rope.get("factor"), "factor", file) if yarn else None,
        yarn_original_context_tokens=(
            _whole(rope, "original_max_position_embeddings", file) if yarn else None
        ),
        **numbers,
    )


def _is_moe(config: Mapping[str, Any], file: str) -> bool:
    names, kind = config.get("architectures"), config.get("model_type")
    found = names[0] if isinstance(names, list) and names else None
    known = ARCHITECTURES.get(str(found)) if found is not None else kind
    if known not in ARCHITECTURES.values():
        raise UnsupportedArchitecture(
            file,
            found=f"architecture {str(found if found is not None else kind)[:80]!r}",
            expected=" or ".join(ARCHITECTURES),
            hint="qwharf runs Qwen3 models and fine-tunes of them",
        )
    if kind not in (None, known):
        raise _bad(file, "model_type", kind, f"{known}, as the architecture says")
    return known == "qwen3_moe"


PLAIN: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "hidden_act": ("silu", None),
    "use_sliding_window": (False, None),
}
PLAIN_MOE: Mapping[str, tuple[Any, ...]] = {
    "norm_topk_prob": (True,),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
}
"""What all Qwen3 models share, and engines and conversions take for granted."""


def _check_graph(config: Mapping[str, Any], file: str, *, moe: bool) -> None:
    for key, good in {**PLAIN, **(PLAIN_MOE if moe else {})}.items():
        if config.get(key) not in good:
            raise _bad(file, key, config.get(key), f"{json.dumps(good[0])}, as in every Qwen3")


def _bad(file: str, key: str, value: object, expected: str) -> InvalidFile:
    found = f"no {key}" if value is None else f"{key} = {str(value)[:80]}"
    return InvalidFile(file, found=found, expected=expected, hint="fetch config.json again")


def _whole(config: Mapping[str, Any], key: str, file: str, most: int = 2**31 - 1) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise _bad(file, key, value, f"{key}, a whole number from 1 to {most}")
    return value


def _real(value: Any, key: str, file: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 < value <= MAX_REAL:  # NaN is neither
        raise _bad(file, key, value, f"{key}, a positive number")
    return float(value)


def _token(value: Any) -> int | None:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


# ----------------------------------------------------------------------------------------- format


DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}
MLX_BITS = (2, 3, 4, 5, 6, 8)
MLX_GROUPS = {"32": "-g32", "128": "-g128"}
"""Sizes of groups that are named; 64 is the usual one."""
GPTQ_BITS = (4, 8)


def format_of(config: Mapping[str, Any], *, file: str) -> Format | None:
    """The format that a ``config.json`` declares; ``None``: no quantisation and no dtype.

    Raises:
        InvalidFile: a quantisation or dtype that qwharf does not know.
    """
    mlx = config.get("quantization")
    if isinstance(mlx, Mapping) and "bits" in mlx and "quant_method" not in mlx:
        group = mlx.get("group_size", 64)
        return Format("mlx", f"{_bits(mlx, MLX_BITS, file)}bit" + MLX_GROUPS.get(str(group), ""))
    quant = config.get("quantization_config")
    if not isinstance(quant, Mapping):
        dtype = config.get("torch_dtype") or config.get("dtype")
        if dtype is None:
            return None
        name = str(dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise _bad(file, "torch_dtype", dtype, " or ".join(DTYPES))
        return Format("safetensors", DTYPES[name])
    method = quant.get("quant_method")
    if method == "gptq":
        return Format("safetensors", f"gptq-int{_bits(quant, GPTQ_BITS, file)}")
    if method == "awq":
        _bits(quant, (4,), file)
    if method == "compressed-tensors":
        return Format("safetensors", _compressed(quant))
    if method in ("fp8", "awq"):
        return Format("safetensors", str(method))
    raise _bad(file, "quant_method", method, "fp8, awq, gptq or compressed-tensors")


COMPRESSED = {
    ("pack-quantized", "4", "int", "group"): "w4a16",
    ("int-quantized", "8", "int", "channel"): "w8a8",
    ("float-quantized", "8", "float", "channel"): "fp8-channel",
}
"""The kinds of compressed-tensors that have a name, by container, bits, number and strategy."""


def _compressed(quant: Mapping[str, Any]) -> str:
    """The name of the kind, or ``compressed-tensors`` where it has none."""
    groups = quant.get("config_groups")
    found = set()
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            bits, kind = str(weights.get("num_bits")), str(weights.get("type"))
            found.add((str(quant.get("format")), bits, kind, str(weights.get("strategy"))))
    if len(found) != 1:
        return "compressed-tensors"
    return COMPRESSED.get(found.pop(), "compressed-tensors")


def _bits(quant: Mapping[str, Any], good: tuple[int, ...], file: str) -> int:
    bits = quant.get("bits")
    if not isinstance(bits, int) or bits not in good:
        raise _bad(file, "bits", bits, "bits: " + ", ".join(map(str, good)))
    return bits
