"""Very small Qwen3 checkpoints and GGUF files, whole and valid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.safetensors import SafetensorsWriter
from qwharf.formats.tensors import checkpoint_tensors, gguf_tensors
from qwharf.types import Architecture

TINY = Architecture(
    model_type="qwen3",
    num_hidden_layers=2,
    hidden_size=64,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    intermediate_size=96,
    vocab_size=320,
    tie_word_embeddings=True,
    max_position_embeddings=1024,
    bos_token_id=1,
    eos_token_id=2,
)

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 96,
    "vocab_size": 320,
    "tie_word_embeddings": True,
    "max_position_embeddings": 1024,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def checkpoint(folder: Path, *, shards: int = 1, seed: int = 0) -> Path:
    """A checkpoint of two layers in Hugging Face layout, with files that do not belong."""
    folder.mkdir(parents=True, exist_ok=True)
    random_bytes = random.Random(seed).randbytes
    specs = checkpoint_tensors(TINY)
    groups = [specs[i::shards] for i in range(shards)]
    names = ["model.safetensors"]
    if shards > 1:
        names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        weight_map = {s.name: n for n, g in zip(names, groups, strict=True) for s in g}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, group in zip(names, groups, strict=True):
        entries = [(s.name, "BF16", s.shape) for s in group]
        with SafetensorsWriter(folder / name, entries) as writer:
            for spec in group:
                writer.write(random_bytes(2 * spec.elements))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (folder / "LICENSE").write_text("Apache-2.0")
    (folder / "README.md").write_text("not part of it")
    (folder / "optimizer.pt").write_bytes(b"not part of it")
    (folder / "runs").mkdir(exist_ok=True)
    return folder


def gguf(path: Path, *, file_type: int | None = 0, architecture: str = "qwen3") -> Path:
    """A GGUF of two layers in F32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    a = TINY
    metadata: dict[str, tuple[str, Any]] = {
        "general.architecture": ("str", architecture),
        "qwen3.block_count": ("u32", a.num_hidden_layers),
        "qwen3.context_length": ("u32", a.max_position_embeddings),
        "qwen3.embedding_length": ("u32", a.hidden_size),
        "qwen3.feed_forward_length": ("u32", a.intermediate_size),
        "qwen3.attention.head_count": ("u32", a.num_attention_heads),
        "qwen3.attention.head_count_kv": ("u32", a.num_key_value_heads),
        "qwen3.attention.key_length": ("u32", a.head_dim),
        "qwen3.attention.value_length": ("u32", a.head_dim),
        "qwen3.attention.layer_norm_rms_epsilon": ("f32", a.rms_norm_eps),
        "qwen3.rope.freq_base": ("f32", a.rope_theta),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
    }
    if file_type is not None:
        metadata["general.file_type"] = ("u32", file_type)
    f32 = GGML_TYPES["F32"]
    specs = gguf_tensors(a)
    header = gguf_header(metadata, [(s.name, s.shape, f32) for s in specs])
    body = bytearray(header.size_bytes)
    body[: len(header.data)] = header.data
    path.write_bytes(body)
    return path
