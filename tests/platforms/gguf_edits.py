"""Change a GGUF file's header, sensibly or not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf import read_gguf
from qwharf.formats.gguf_writer import gguf_header

Metadata = dict[str, tuple[str, Any]]
Tensors = list[tuple[str, tuple[int, ...], Any]]
Change = Callable[[Metadata, Tensors], None]


def edited(source: Path, target: Path, change: Change) -> Path:
    """A copy of ``source`` with ``change`` made to its metadata and tensor table."""
    file = read_gguf(source, keep_arrays=True)
    metadata = {k: (file.kinds[k], v) for k, v in file.metadata.items()}
    tensors: Tensors = [(t.name, t.shape, t.type) for t in file.tensors.values()]
    change(metadata, tensors)
    header = gguf_header(metadata, tensors)
    data = source.read_bytes()[file.data_offset :]
    lacking = header.size_bytes - len(header.data) - len(data)
    target.write_bytes(header.data + data + bytes(max(0, lacking)))
    return target


def put(key: str, value: Any, kind: str | None = None) -> Change:
    """Set a key, of the type it had; ``None`` removes it."""

    def change(metadata: Metadata, tensors: Tensors) -> None:
        if value is None:
            del metadata[key]
        else:
            metadata[key] = (kind or metadata[key][0], value)

    return change


def retype(name: str, type_name: str) -> Change:
    """Claim that a tensor has another type."""

    def change(metadata: Metadata, tensors: Tensors) -> None:
        at = next(i for i, t in enumerate(tensors) if t[0] == name)
        tensors[at] = (name, tensors[at][1], GGML_TYPES[type_name])

    return change


KEYS = (
    "qwen3.vocab_size", "qwen3.pooling_type", "qwen3.attention.causal", "qwen3.attention.scale",
    "qwen3.attention.sliding_window", "qwen3.attention.sliding_window_pattern",
    "qwen3.attention.temperature_scale", "qwen3.attention.clamp_kqv", "qwen3.logit_scale",
    "qwen3.attention.key_length_mla", "qwen3.attention.max_alibi_bias", "qwen3.expert_count",
    "qwen3.leading_dense_block_count", "qwen3.attention.recurrent_layers", "qwen3.num_loops",
    "qwen3.rope.dimension_sections", "qwen3.rope.scale_linear", "qwen3.rope.scaling.attn_factor",
    "qwen3.rope.scaling.factor", "qwen3.rope.scaling.original_context_length",
    "qwen3.rope.scaling.type", "qwen3.n_deepstack_layers", "qwen3.classifier.output_labels",
    "qwen3.full_attention_interval", "qwen3.ssm.conv_kernel", "qwen3.wkv.head_size",
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.scores",
    "tokenizer.ggml.eot_token_id", "tokenizer.ggml.token_type_count", "split.count", "split.no",
    "tokenizer.ggml.suppress_tokens", "tokenizer.ggml.precompiled_charsmap", "adapter.type",
    "general.sampling.top_k", "general.sampling.temp", "general.sampling.sequence",
    "general.sampling.penalty_last_n", "general.sampling.mirostat", "general.sampling.min_p",
)  # fmt: skip
"""What llama.cpp also reads, and these files do not have."""

NUMBERS = (0, 1, 2, 3, 7, 64, 255, 256, 320, 321, 2**15, 2**31 - 1, 2**32 - 1, -1, -2)
REALS = (0.0, -1.0, 1.0, 1e-30, 1e30, math.nan, math.inf, 1000.0)
TEXTS = ("", "gpt2", "llama", "yarn", "longrope", "x" * 5000, "{{", "ü\udcff", "a b c", "mean")
LIMITS = {"u8": (0, 2**8), "i8": (-(2**7), 2**7), "u32": (0, 2**32), "i32": (-(2**31), 2**31)}
KINDS = ("u32", "u32", "i32", "f32", "f32", "bool", "str", "u8", "[i32]", "[f32]", "[str]")
LISTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")


def random_value(random: random.Random, kind: str) -> Any:
    if kind.startswith("["):
        return [random_value(random, kind[1:-1]) for _ in range(random.choice((0, 1, 3, 320)))]
    if kind in LIMITS:
        low, high = LIMITS[kind]
        return max(low, min(high - 1, random.choice(NUMBERS)))
    if kind == "f32":
        return random.choice(REALS)
    return random.random() < 0.5 if kind == "bool" else random.choice(TEXTS)


def random_change(random: random.Random, metadata: Metadata, tensors: Tensors) -> str:
    """Change one thing in the metadata or the tensor table; what was done."""
    what = random.choice(("value", "value", "add", "add", "add", "drop", "item", "retype"))
    key = random.choice([k for k in metadata if k not in LISTS])
    if what == "value":
        kind = metadata[key][0]
        metadata[key] = (kind, random_value(random, kind))
    elif what == "add":
        key, kind = random.choice(KEYS), random.choice(KINDS)
        metadata[key] = (kind, random_value(random, kind))
    elif what == "drop":
        del metadata[key]
    elif what == "item":
        key = random.choice(LISTS)
        kind, items = metadata[key][0], list(metadata[key][1])
        items[random.randrange(len(items))] = random_value(random, kind[1:-1])
        metadata[key] = (kind, items)
    else:
        at = random.randrange(len(tensors))
        key, shape, _ = tensors[at]
        fitting = [t for t in GGML_TYPES.values() if shape[-1] % t.block_elements == 0]
        tensors[at] = (key, shape, random.choice(fitting))
    return f"{what} {key}: {metadata.get(key)!r:.80}"
