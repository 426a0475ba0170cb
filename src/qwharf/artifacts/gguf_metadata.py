"""The metadata of a GGUF file, made from a Hugging Face checkpoint.

Keys and value types are those that llama.cpp's own converter writes for Qwen3
(``conversion/base.py``, ``gguf-py/gguf/gguf_writer.py``); docs/convert.md lists what differs on
purpose. Everything comes from the checkpoint: the tokenizer, the chat template and the sampling
defaults are read, never assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile
from qwharf.formats.checkpoint import read_json
from qwharf.types import Architecture

Kind = str
"""As :mod:`qwharf.formats.gguf_writer` names them: ``u32``, ``str``, ``[i32]`` …"""
Metadata = dict[str, tuple[Kind, Any]]
"""Key to value type and value, in file order."""

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The word pattern that llama.cpp's pre-tokenizer ``qwen2`` implements."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""``tokenizer.ggml.token_type``."""

LOOKS_SPECIAL = re.compile(r"<\|.*\|>", re.DOTALL)
SIZED_NAME = re.compile(
    r"(?P<base>.+?)[-_ :](?P<size>\d+(?:\.\d+)?[bm](?:-a\d+(?:\.\d+)?b)?)(?:[-_ ](?P<rest>.+))?",
    re.IGNORECASE,
)
SAMPLING = {
    "top_k": ("top_k", "i32"),
    "top_p": ("top_p", "f32"),
    "min_p": ("min_p", "f32"),
    "temperature": ("temp", "f32"),
    "repetition_penalty": ("penalty_repeat", "f32"),
}
"""Keys of generation_config.json to those below ``general.sampling.``, and their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """What a GGUF file holds of a tokenizer; the lists have one entry per embedding row."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: Mapping[str, int]


# ------------------------------------------------------------------------------------- general


def model_metadata(
    arch: Architecture,
    *,
    name: str,
    parameters: int,
    license_id: str | None,
    generation_config: Mapping[str, Any],
) -> Metadata:
    """``general.*`` and the architecture's own keys.

    Args:
        arch: the model's numbers.
        name: what the model is called, ``Qwen3-0.6B``; size and variant are read off it.
        parameters: their count, for a name that does not tell the size.
        license_id: as in a model card, ``apache-2.0``.
        generation_config: parsed ``generation_config.json``, or empty.
    """
    kind = "qwen3moe" if arch.is_moe else "qwen3"
    data: Metadata = {
        "general.architecture": ("str", kind),
        "general.type": ("str", "model"),
    }
    for key, (short, value_kind) in SAMPLING.items():
        value = generation_config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            number: Any = int(value) if value_kind == "i32" else float(value)
            data[f"general.sampling.{short}"] = (_kind(value_kind), number)
    data.update(_names(name, parameters))
    if license_id:
        data["general.license"] = ("str", license_id)
    data |= {
        f"{kind}.block_count": ("u32", arch.num_hidden_layers),
        f"{kind}.context_length": ("u32", arch.max_position_embeddings),
        f"{kind}.embedding_length": ("u32", arch.hidden_size),
        f"{kind}.feed_forward_length": ("u32", arch.intermediate_size),
        f"{kind}.attention.head_count": ("u32", arch.num_attention_heads),
        f"{kind}.attention.head_count_kv": ("u32", arch.num_key_value_heads),
    }
    if arch.yarn_factor is not None:
        native = arch.yarn_original_context_tokens or arch.max_position_embeddings
        data |= {
            f"{kind}.rope.scaling.type": ("str", "yarn"),
            f"{kind}.rope.scaling.factor": ("f32", float(arch.yarn_factor)),
            f"{kind}.rope.scaling.original_context_length": ("u32", native),
        }
    data |= {
        f"{kind}.rope.freq_base": ("f32", float(arch.rope_theta)),
        f"{kind}.attention.layer_norm_rms_epsilon": ("f32", float(arch.rms_norm_eps)),
    }
    if arch.is_moe:
        data |= {
            f"{kind}.expert_count": ("u32", arch.num_experts),
            f"{kind}.expert_used_count": ("u32", arch.num_experts_per_tok),
        }
    data |= {
        f"{kind}.attention.key_length": ("u32", arch.head_dim),
        f"{kind}.attention.value_length": ("u32", arch.head_dim),
    }
    if arch.is_moe:
        data[f"{kind}.expert_feed_forward_length"] = ("u32", arch.moe_intermediate_size)
    return data


def _kind(text: str) -> Kind:
    return "i32" if text == "i32" else "f32"


def _names(name: str, parameters: int) -> Metadata:
    data: Metadata = {"general.name": ("str", name.replace("-", " ").replace("_", " "))}
    found = SIZED_NAME.fullmatch(name)
    if found is None:
        data["general.size_label"] = ("str", size_label(parameters))
        return data
    if found["rest"]:
        data["general.finetune"] = ("str", found["rest"])
    data["general.basename"] = ("str", found["base"])
    data["general.size_label"] = ("str", found["size"].upper())
    return data


def size_label(parameters: int) -> str:
    """A parameter count for people: ``0.6B``, ``8B``, ``3.4M``."""
    for scale, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= scale // 2:
            value = parameters / scale
            return f"{value:.0f}{letter}" if value >= 9.95 else f"{value:.1f}{letter}"
    return str(parameters)


def file_metadata(file_type: int) -> Metadata:
    """What depends on the quantisation: ``general.file_type`` and the format's version."""
    return {
        "general.quantization_version": ("u32", 2),
        "general.file_type": ("u32", file_type),
    }


# ----------------------------------------------------------------------------------- tokenizer


def tokenizer_metadata(
    folder: Path,
    arch: Architecture,
    chat_template: str | None,
    generation_config: Mapping[str, Any],
) -> Metadata:
    """``tokenizer.*``, from tokenizer.json and tokenizer_config.json in ``folder``.

    Raises:
        InvalidFile: missing or damaged files, or a tokenizer that is not Qwen's kind, which
            llama.cpp would run with the wrong rules.
    """
    tokenizer = read_tokenizer(folder / "tokenizer.json", arch.vocab_size)
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    data: Metadata = {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "qwen2"),
        "tokenizer.ggml.tokens": ("[str]", tokenizer.tokens),
        "tokenizer.ggml.token_type": ("[i32]", tokenizer.types),
        "tokenizer.ggml.merges": ("[str]", tokenizer.merges),
    }
    fallback = {"eos": arch.eos_token_id, "bos": arch.bos_token_id, "pad": None}
    for short, key in (("eos", "eos"), ("pad", "padding"), ("bos", "bos")):
        found = _token_id(config.get(f"{short}_token"), tokenizer)
        for other in (generation_config.get(f"{short}_token_id"), fallback[short]):
            if found is None:
                found = _first_id(other)
        if found is None:
            continue
        if not 0 <= found < arch.vocab_size:
            raise InvalidFile(
                str(path),
                found=f"{short} token id {found}",
                expected=f"an id below the vocabulary size, {arch.vocab_size}",
                hint="check eos_token_id, bos_token_id and pad_token_id in config.json and "
                "generation_config.json",
            )
        data[f"tokenizer.ggml.{key}_token_id"] = ("u32", found)
    data["tokenizer.ggml.add_bos_token"] = ("bool", False)
    if chat_template:
        data["tokenizer.chat_template"] = ("str", chat_template)
    return data


def _token_id(token: Any, tokenizer: Tokenizer) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return tokenizer.ids.get(text) if isinstance(text, str) else None


def _first_id(value: Any) -> int | None:
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_tokenizer(path: Path, rows: int) -> Tokenizer:
    """The vocabulary of ``tokenizer.json``, padded to the ``rows`` of the embedding.

    Raises:
        InvalidFile: not a byte-level BPE with Qwen's word pattern, or ids that do not fit.
    """
    if not path.is_file():
        raise InvalidFile(
            str(path),
            found="no such file",
            expected="the model's tokenizer",
            hint="get it from the model's repository",
        )
    data = read_json(path)
    _check_kind(path, data)
    vocab, merges, added = _parts(path, data)
    tokens = [f"[PAD{n}]" for n in range(rows)]
    types = [UNUSED] * rows
    ids: dict[str, int] = {}
    for text, at in vocab.items():
        _place(path, tokens, types, at, text, NORMAL)
        ids[text] = at
    for at, text, special in added:
        control = special or LOOKS_SPECIAL.fullmatch(text) is not None
        _place(path, tokens, types, at, text, CONTROL if control else USER_DEFINED)
        ids[text] = at
    return Tokenizer(tokens=tokens, types=types, merges=merges, ids=ids)


def _place(path: Path, tokens: list[str], types: list[int], at: int, text: str, kind: int) -> None:
    if not 0 <= at < len(tokens):
        raise InvalidFile(
            str(path),
            found=f"token {text!r} with id {at}",
            expected=f"an id below vocab_size in config.json, {len(tokens)}",
            hint="use the tokenizer.json that belongs to these weights",
        )
    if types[at] == NORMAL and kind == NORMAL:
        raise InvalidFile(
            str(path),
            found=f"id {at} for both {tokens[at]!r} and {text!r}",
            expected="one token per id",
            hint="use the tokenizer.json that belongs to these weights",
        )
    tokens[at], types[at] = text, kind


def _parts(
    path: Path, data: dict[str, Any]
) -> tuple[dict[str, int], list[str], list[tuple[int, str, bool]]]:
    model = data["model"]
    vocab, merges, added = model.get("vocab"), model.get("merges"), data.get("added_tokens", [])
    try:
        if (
            not isinstance(vocab, dict)
            or not vocab
            or any(type(i) is not int for i in vocab.values())
        ):
            raise TypeError("model.vocab is not a table of ids")
        lines = [m if isinstance(m, str) else " ".join(_pair(m)) for m in merges]
        extra = [(int(t["id"]), str(t["content"]), bool(t["special"])) for t in added]
    except (TypeError, KeyError, ValueError) as e:
        raise InvalidFile(
            str(path),
            found=f"{type(e).__name__}: {e}",
            expected="model.vocab, model.merges and added_tokens of a BPE tokenizer",
            hint="get tokenizer.json again from the model's repository",
        ) from e
    return vocab, lines, extra


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge
    if not (isinstance(left, str) and isinstance(right, str)):
        raise TypeError("a merge is not a pair of strings")
    return left, right


def _check_kind(path: Path, data: dict[str, Any]) -> None:
    """llama.cpp only knows the pattern by name, so it must really be the one of that name."""
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = model.get("type") if isinstance(model, dict) else model
        raise InvalidFile(
            str(path),
            found=f"a tokenizer of type {kind!r}",
            expected="byte-level BPE, as Qwen3 has",
            hint="use the tokenizer.json of the Qwen3 model that this one was made from",
        )
    found = list(_patterns(data.get("pre_tokenizer")))
    if found != [PATTERN]:
        raise InvalidFile(
            str(path),
            found="no word pattern" if not found else f"the word pattern {found[0]!r}",
            expected=f"Qwen's, {PATTERN!r}",
            hint="llama.cpp would split text differently from this tokenizer; use the "
            "tokenizer.json of the Qwen3 model that this one was made from",
        )


def _patterns(node: Any, depth: int = 0) -> list[str]:
    """Every regular expression that a pre-tokenizer splits by."""
    if not isinstance(node, dict) or depth > 4:
        return []
    if node.get("type") == "Sequence":
        parts = node.get("pretokenizers")
        items = parts if isinstance(parts, list) else []
        return [p for item in items for p in _patterns(item, depth + 1)]
    if node.get("type") == "Split":
        pattern = node.get("pattern")
        return [str(pattern.get("Regex"))] if isinstance(pattern, dict) else [str(pattern)]
    if node.get("type") == "ByteLevel" and not node.get("use_regex", True):
        return []
    return [str(node.get("type"))]
