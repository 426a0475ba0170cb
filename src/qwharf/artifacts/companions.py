"""What goes along with weights in a folder: configuration, tokenizer, template, sampling defaults.

From a checkpoint these are its own files; from a GGUF file they are rebuilt from its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.artifacts.gguf_metadata import CONTROL, SAMPLING, UNUSED, USER_DEFINED
from qwharf.artifacts.selection import is_companion
from qwharf.artifacts.stored import Stored
from qwharf.artifacts.targets import DTYPES
from qwharf.errors import InvalidFile
from qwharf.formats.gguf import GgufFile
from qwharf.formats.tokenizer import PATTERN
from qwharf.types import Architecture

QUANTIZATION_FILES = frozenset(
    {"hf_quant_config.json", "quant_config.json", "quantize_config.json"}
)
"""They tell of the source's weights, not of the target's."""
NOT_SPECIAL = frozenset(
    {"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>"}
    | {"<|file_sep|>"}
)
"""Control tokens by their look, which Qwen's own tokenizer does not flag as special."""


@dataclass(frozen=True, slots=True)
class Companions:
    """Files beside the weights: made here, and copied."""

    texts: Mapping[str, bytes]
    copies: Mapping[str, Path]


def companions(
    stored: Stored, section: dict[str, Any], dtype: str, *, for_mlx: bool = False
) -> Companions:
    """The files that go along.

    Args:
        stored: the source.
        section: what ``config.json`` is to say of the quantisation.
        dtype: of the plain floats: ``BF16``, ``F16`` or ``F32``.
        for_mlx: whether ``config.json`` has the end tokens of generation_config.json, as mlx-lm
            writes it.

    Raises:
        InvalidFile: the source's metadata lack what a tokenizer needs.
    """
    if stored.checkpoint is not None:
        folder = stored.checkpoint.folder
        config = {
            key: value
            for key, value in stored.checkpoint.config.items()
            if key not in ("quantization", "quantization_config", "_name_or_path")
        }
        for key in ("torch_dtype", "dtype"):
            if key in config:
                config[key] = DTYPES[dtype]
        if "dtype" not in config:
            config["torch_dtype"] = DTYPES[dtype]
        ends = stored.checkpoint.generation_config.get("eos_token_id")
        if for_mlx and ends is not None:
            config["eos_token_id"] = ends
        copies = {
            path.name: path
            for path in sorted(folder.iterdir())
            if path.is_file()
            and is_companion(path.name)
            and path.name not in {"config.json", *QUANTIZATION_FILES}
        }
        return Companions({"config.json": _json(dict(sorted((config | section).items())))}, copies)
    if stored.gguf is None:
        raise ValueError("neither a checkpoint nor a GGUF file")
    config = config_of(stored.arch, dtype)
    texts = {
        "config.json": _json(dict(sorted((config | section).items()))),
        "generation_config.json": _json(_generation_config(stored.gguf)),
        **_tokenizer(stored.gguf),
    }
    return Companions(texts, {})


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"


def config_of(arch: Architecture, dtype: str) -> dict[str, Any]:
    """``config.json`` of a Qwen3 with these numbers, in the Hub's spelling."""
    made: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM" if arch.is_moe else "Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": arch.bos_token_id,
        "eos_token_id": arch.eos_token_id,
        "head_dim": arch.head_dim,
        "hidden_act": "silu",
        "hidden_size": arch.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": arch.intermediate_size,
        "max_position_embeddings": arch.max_position_embeddings,
        "max_window_layers": arch.num_hidden_layers,
        "model_type": arch.model_type,
        "num_attention_heads": arch.num_attention_heads,
        "num_hidden_layers": arch.num_hidden_layers,
        "num_key_value_heads": arch.num_key_value_heads,
        "rms_norm_eps": arch.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": arch.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": arch.tie_word_embeddings,
        "torch_dtype": DTYPES[dtype],
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": arch.vocab_size,
    }
    if arch.yarn_factor is not None:
        made["rope_scaling"] = {
            "factor": arch.yarn_factor,
            "original_max_position_embeddings": arch.yarn_original_context_tokens,
            "rope_type": "yarn",
        }
    if arch.is_moe:
        made |= {
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": arch.moe_intermediate_size,
            "norm_topk_prob": True,
            "num_experts": arch.num_experts,
            "num_experts_per_tok": arch.num_experts_per_tok,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
        }
    return made


# ----------------------------------------------------------------------------- from GGUF metadata


def _generation_config(file: GgufFile) -> dict[str, Any]:
    """The sampling defaults that the file carries; Qwen's own files of 2025 carry none."""

    def token(which: str) -> Any:
        return file.metadata.get(f"tokenizer.ggml.{which}_token_id")

    bos, eos = token("bos"), token("eos")
    made: dict[str, Any] = {
        "bos_token_id": bos,
        "eos_token_id": [eos, bos] if bos is not None and bos != eos else eos,
        "pad_token_id": token("padding"),
    }
    for key, (short, _) in SAMPLING.items():
        value = file.metadata.get(f"general.sampling.{short}")
        if isinstance(value, float):
            value = float(f"{value:.7g}")  # stored as f32
        if value is not None:
            made[key] = value
            made["do_sample"] = True
    return dict(sorted((k, v) for k, v in made.items() if v is not None))


def _tokenizer(file: GgufFile) -> dict[str, bytes]:
    meta = file.metadata
    tokens, types = meta.get("tokenizer.ggml.tokens"), meta.get("tokenizer.ggml.token_type")
    merges = meta.get("tokenizer.ggml.merges")
    if (
        not (isinstance(tokens, list) and isinstance(types, list) and isinstance(merges, list))
        or len(tokens) != len(types)
        or not all(isinstance(m, str) for m in merges)
    ):
        raise InvalidFile(
            str(file.path),
            found="a vocabulary without tokens, types or merges",
            expected="tokenizer.ggml.tokens, token_type and merges",
            hint="convert the original checkpoint instead",
        )
    added, vocab = [], {}
    for number, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (CONTROL, USER_DEFINED):
            special = kind == CONTROL and text not in NOT_SPECIAL
            added.append((number, text, special))
        elif kind != UNUSED:
            vocab[text] = number
    pairs = [m.split(" ") for m in merges]
    if not all(len(p) == 2 for p in pairs):
        raise InvalidFile(
            str(file.path), found="a merge that is not a pair", expected="pairs of tokens"
        )
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": text} | _flags(s) for n, text, s in added],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(),
            ],
        },
        "post_processor": _byte_level(),
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": pairs,
        },
    }
    return {
        "tokenizer.json": _json(data),
        "tokenizer_config.json": _json(_tokenizer_config(file, tokens, added)),
    }


def _tokenizer_config(
    file: GgufFile, tokens: list[str], added: list[tuple[int, str, bool]]
) -> dict[str, Any]:
    def text(which: str) -> str | None:
        number = file.metadata.get(f"tokenizer.ggml.{which}_token_id")
        return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None

    made = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(n): {"content": t} | _flags(s) for n, t, s in added},
        "additional_special_tokens": [t for _, t, s in added if s and t != text("padding")],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": text("eos"),
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": text("padding"),
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    template = file.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        made["chat_template"] = template
    return made


def _flags(special: bool) -> dict[str, bool]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {**off, "special": special}


def _byte_level() -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
