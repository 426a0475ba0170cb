"""``config.json``: what is read, what is refused, and anything at all."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError, UnsupportedArchitecture
from qwharf.formats.config import architecture_from_config, format_of

DENSE: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
MOE: dict[str, Any] = {
    **DENSE,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "tie_word_embeddings": False,
}


def read(config: Any) -> Any:
    return architecture_from_config(config, file="config.json")


def test_dense() -> None:
    found = read(DENSE)
    assert found.model_type == "qwen3" and found.num_experts == 0
    assert (found.hidden_size, found.head_dim, found.vocab_size) == (1024, 128, 151936)
    assert found.rope_theta == 1e6 and found.rms_norm_eps == 1e-6
    assert (found.bos_token_id, found.eos_token_id) == (151643, 151645)
    assert found.yarn_factor is None


def test_moe() -> None:
    found = read(MOE)
    assert found.is_moe and not found.tie_word_embeddings
    assert (found.num_experts, found.num_experts_per_tok, found.moe_intermediate_size) == (
        128,
        8,
        768,
    )


def test_the_spelling_of_transformers_5() -> None:
    new = {k: v for k, v in MOE.items() if k not in ("rope_theta", "rope_scaling", "num_experts")}
    new |= {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "num_local_experts": 128,
    }
    new |= {"eos_token_id": [151645, 151643]}
    assert read(new) == read(MOE)


def test_yarn() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    found = read(DENSE | {"rope_scaling": scaling})
    assert (found.yarn_factor, found.yarn_original_context_tokens) == (4.0, 32768)
    old = read(DENSE | {"rope_scaling": {**scaling, "type": "yarn"}})
    assert old == found


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "LlamaForCausalLM"),
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, "Qwen2ForCausalLM"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "SequenceClassification"),
        ({"architectures": None, "model_type": "gemma"}, "gemma"),
        ({"architectures": [], "model_type": None}, "None"),
        ({"architectures": [{"a": 1}]}, "{'a': 1}"),
    ],
)
def test_another_architecture_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=named) as caught:
        read(DENSE | change)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("base", "change", "named"),
    [
        (DENSE, {"model_type": "qwen3_moe"}, "model_type"),
        (DENSE, {"head_dim": None}, "no head_dim"),
        (DENSE, {"head_dim": 0}, "head_dim = 0"),
        (DENSE, {"head_dim": 128.0}, "head_dim"),
        (DENSE, {"head_dim": True}, "head_dim"),
        (DENSE, {"hidden_size": 2**40}, "hidden_size"),
        (DENSE, {"num_hidden_layers": 10**6}, "num_hidden_layers"),
        (DENSE, {"vocab_size": 2**31 - 1}, "vocab_size"),
        (DENSE, {"num_attention_heads": 15}, "num_attention_heads"),
        (DENSE, {"rope_theta": None}, "rope_theta"),
        (DENSE, {"rope_theta": float("nan")}, "rope_theta"),
        (DENSE, {"rope_theta": 10**400}, "rope_theta"),
        (DENSE, {"rms_norm_eps": -1e-6}, "rms_norm_eps"),
        (DENSE, {"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        (DENSE, {"rope_scaling": {"rope_type": "linear", "factor": 2}}, "rope_type"),
        (DENSE, {"rope_scaling": {"rope_type": "yarn"}}, "factor"),
        (DENSE, {"rope_scaling": [1]}, "rope_parameters"),
        (DENSE, {"tie_word_embeddings": None}, "tie_word_embeddings"),
        (DENSE, {"tie_word_embeddings": "true"}, "tie_word_embeddings"),
        (DENSE, {"attention_bias": True}, "attention_bias"),
        (DENSE, {"hidden_act": "gelu"}, "hidden_act"),
        (DENSE, {"use_sliding_window": True}, "use_sliding_window"),
        (MOE, {"norm_topk_prob": False}, "norm_topk_prob"),
        (MOE, {"norm_topk_prob": None}, "norm_topk_prob"),
        (MOE, {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        (MOE, {"mlp_only_layers": [0]}, "mlp_only_layers"),
        (MOE, {"num_experts": 10**6}, "num_experts"),
        (MOE, {"num_experts_per_tok": 129}, "num_experts_per_tok"),
        (MOE, {"moe_intermediate_size": None}, "moe_intermediate_size"),
    ],
)
def test_what_is_missing_or_impossible_is_named(
    base: dict[str, Any], change: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidFile, match=named) as caught:
        read(base | change)
    assert caught.value.expected and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "format"),
    [
        ({}, "safetensors:bf16"),
        ({"torch_dtype": None, "dtype": "torch.float16"}, "safetensors:f16"),
        ({"torch_dtype": "float32"}, "safetensors:f32"),
        ({"torch_dtype": None}, "None"),
        ({"quantization_config": {"quant_method": "fp8"}}, "safetensors:fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "safetensors:awq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "safetensors:gptq-int8"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            "safetensors:compressed-tensors",
        ),
        ({"quantization": {"bits": 4, "group_size": 128}}, "mlx:4bit-g128"),
        (
            {"quantization": {"bits": 6}, "quantization_config": {"bits": 6, "group_size": 64}},
            "mlx:6bit",
        ),
    ],
)
def test_formats(change: dict[str, Any], format: str) -> None:
    assert str(format_of(DENSE | change, file="config.json")) == format


@pytest.mark.parametrize(
    "change",
    [
        {"torch_dtype": "int8"},
        {"torch_dtype": ["bfloat16"]},
        {"quantization_config": {}},
        {"quantization_config": {"quant_method": ["fp8"]}},
        {"quantization_config": {"quant_method": "gptq", "bits": 5}},
        {"quantization_config": {"quant_method": "gptq", "bits": True}},
        {"quantization_config": {"quant_method": "awq"}},
        {"quantization": {"bits": 7}},
    ],
)
def test_unknown_formats(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidFile):
        format_of(DENSE | change, file="config.json")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [*MOE, "rope_parameters", "quantization", "quantization_config", "dtype"]
KEYS += ["num_local_experts"]
NESTED = st.dictionaries(
    st.sampled_from(["rope_type", "type", "factor", "rope_theta", "quant_method", "bits"])
    | st.just("original_max_position_embeddings"),
    JSON | st.sampled_from(["yarn", "gptq", 4]),
    max_size=4,
)


@given(
    st.sampled_from([DENSE, MOE]),
    st.dictionaries(st.sampled_from(KEYS), JSON | NESTED, max_size=4),
    st.sets(st.sampled_from(KEYS), max_size=2),
)
def test_wild_configs_are_read_or_refused(
    base: dict[str, Any], change: dict[str, Any], without: set[str]
) -> None:
    config = {k: v for k, v in (base | change).items() if k not in without}
    config = json.loads(json.dumps(config))
    with contextlib.suppress(QwharfError):
        found = read(config)
        assert found.num_attention_heads % found.num_key_value_heads == 0
        assert 0 < found.rope_theta < 1e39
    with contextlib.suppress(QwharfError):
        format_of(config, file="config.json")
