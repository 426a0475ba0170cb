"""Write a trained model as a checkpoint folder in Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwharf.formats.safetensors import SafetensorsWriter
from qwharf.testing.vocabulary import Tokens, to_json, tokenizer_config, tokenizer_json
from training.model import Shape

TEMPLATE = Path(__file__).parent.parent / "src/qwharf/catalog/pocket/chat_template.jinja"


def write_checkpoint(
    folder: Path, shape: Shape, weights: Mapping[str, Any], tokens: Tokens
) -> None:
    """Write config, tokenizer, template and bf16 weights into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    template = TEMPLATE.read_text("utf-8")
    config = tokenizer_config(tokens, template) | {"model_max_length": shape.context}
    texts = {
        "config.json": to_json(config_json(shape, tokens)),
        "generation_config.json": to_json(generation_config(tokens)),
        "tokenizer.json": json.dumps(tokenizer_json(tokens), ensure_ascii=False, indent=0),
        "tokenizer_config.json": to_json(config),
        "chat_template.jinja": template,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    named = tensors(weights)
    entries = [(name, "BF16", tuple(t.shape)) for name, t in named.items()]
    with SafetensorsWriter(folder / "model.safetensors", entries, {"format": "pt"}) as writer:
        for tensor in named.values():
            writer.write(bf16_bytes(tensor))


def config_json(shape: Shape, tokens: Tokens) -> dict[str, Any]:
    """``config.json`` with the keys that the Hub's Qwen3 checkpoints have."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokens.added_id("<|endoftext|>"),
        "eos_token_id": tokens.added_id("<|im_end|>"),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.ffn,
        "max_position_embeddings": shape.context,
        "max_window_layers": shape.layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocabulary,
    }


def generation_config(tokens: Tokens) -> dict[str, Any]:
    """``generation_config.json`` with Qwen3's preset for thinking."""
    end, text_end = (tokens.added_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
    return {
        "bos_token_id": text_end,
        "do_sample": True,
        "eos_token_id": [end, text_end],
        "pad_token_id": text_end,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "transformers_version": "4.51.0",
    }


def tensors(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Our parameters under the names of the checkpoint format."""
    made = {"model.embed_tokens.weight": weights["embed"]}
    for name, tensor in weights.items():
        if name.startswith("layers."):
            _, number, part = name.split(".")[:3]
            if part.endswith("_proj"):
                block = "mlp" if part in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                part = f"{block}.{part}"
            elif part in ("q_norm", "k_norm"):
                part = f"self_attn.{part}"
            made[f"model.layers.{number}.{part}.weight"] = tensor
    made["model.norm.weight"] = weights["norm"]
    return made


def bf16_bytes(tensor: Any) -> memoryview:
    """The tensor rounded to the nearest bf16, as bytes."""
    import torch

    rounded = tensor.detach().contiguous().to(torch.bfloat16).view(torch.int16)
    return memoryview(rounded.numpy().tobytes())
