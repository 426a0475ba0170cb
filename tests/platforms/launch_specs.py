"""Deployments whose commands are written down in ``golden``, by platform."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from child_cases import FORMATS
from engine_process import spec_of

from qwharf.testing import TINY
from qwharf.types import Architecture, DeploymentSpec, Format, Mode, Sampling

PORT = 40_123

QWEN3_8B = Architecture(
    model_type="qwen3",
    num_hidden_layers=36,
    hidden_size=4096,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=12_288,
    vocab_size=151_936,
    tie_word_embeddings=False,
    max_position_embeddings=40_960,
    bos_token_id=151_643,
    eos_token_id=151_645,
)
QWEN3_30B = replace(
    QWEN3_8B,
    model_type="qwen3_moe",
    num_hidden_layers=48,
    hidden_size=2048,
    num_key_value_heads=4,
    intermediate_size=6144,
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
)
LONG_30B = replace(QWEN3_30B, max_position_embeddings=262_144, rope_theta=1e7)
"""The 2507 update."""

SAMPLING: dict[Mode, Sampling] = {
    "thinking": Sampling(temperature=0.6, top_p=0.95, top_k=20, max_output_tokens=32_768),
    "non-thinking": Sampling(temperature=0.7, top_p=0.8, top_k=20, max_output_tokens=16_384),
}

LLAMA: dict[str, dict[str, Any]] = {
    "plain": {},
    "parallel": {"parallel": 4, "context_tokens": 8192, "kv_cache_type": "q8_0", "threads": None},
    "gpu": {"gpu_layers": 4, "cpu_moe_layers": 2, "name": "on-gpu"},
    "stretched": {
        "context_tokens": 100_000,
        "architecture": replace(TINY, max_position_embeddings=40_960),
    },
    "adapters": {
        "adapters": {"law": Path("/adapters/law.gguf"), "tax": Path("/adapters/tax.gguf")}
    },
}
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "processor": {"threads": 2},
    "gpu": {"gpus": 1, "parallel": 8, "threads": None, "context_tokens": 32_768},
    "stretched": {"gpus": 1, "context_tokens": 131_072, "format": Format("safetensors", "fp8")},
    "experts": {
        # 768 values of an expert are six blocks of 128: they cannot be cut in four.
        "gpus": 4,
        "architecture": QWEN3_30B,
        "format": Format("safetensors", "fp8"),
        "kv_cache_type": "fp8",
        "context_tokens": 40_960,
    },
    "instruct": {
        "gpus": 2,
        "architecture": LONG_30B,
        "thinking": "instruct",
        "sampling": {"non-thinking": SAMPLING["non-thinking"]},
        "context_tokens": 262_144,
    },
    "thinking": {
        "gpus": 2,
        "architecture": LONG_30B,
        "thinking": "thinking",
        "sampling": {"thinking": SAMPLING["thinking"]},
        "context_tokens": 200_000,
    },
    "adapters": {
        "gpus": 1,
        "adapters": {"law": Path("/adapters/law"), "tax": Path("/adapters/tax")},
    },
}
MLX: dict[str, dict[str, Any]] = {
    "processor": {"threads": 2},
    "apple": {"gpus": 1, "format": Format("mlx", "4bit"), "parallel": 4, "context_tokens": 32_768},
    "stretched": {"gpus": 1, "context_tokens": 131_072, "format": Format("mlx", "8bit")},
    "small-cache": {"gpus": 1, "kv_cache_type": "q8_0", "context_tokens": 16_384},
    "instruct": {"gpus": 1, "thinking": "instruct", "sampling": {}, "context_tokens": 32_768},
}
SPECS: dict[str, dict[str, dict[str, Any]]] = {
    "llama.cpp": LLAMA,
    "vllm": CHECKPOINTS,
    "sglang": CHECKPOINTS,
    "mlx": MLX,
}


def spec(platform: str, name: str) -> DeploymentSpec:
    """One of the deployments."""
    fields = SPECS[platform][name]
    if platform == "llama.cpp":
        return spec_of(Path("/models/m.gguf"), **fields)
    usual: dict[str, Any] = {
        "name": "qwen3-8b",
        "platform": platform,
        "format": FORMATS[platform],
        "architecture": QWEN3_8B,
        "context_tokens": 4096,
        "kv_cache_type": "bf16",
        "threads": None,
        "sampling": SAMPLING,
    }
    return spec_of(Path("/models/qwen3-8b"), **usual | fields)
