"""The metadata of a GGUF file, made from a Hugging Face checkpoint.

Keys and value types are those that llama.cpp's own converter writes for Qwen3
(``conversion/base.py``, ``gguf-py/gguf/gguf_writer.py``); docs/formats.md lists what differs on
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
from qwharf.formats.tensors import expert_parameter_count, parameter_count
from qwharf.formats.tokenizer import check_kind
from qwharf.types import Architecture

Kind = str
"""As :mod:`qwharf.formats.gguf_writer` names them: ``u32``, ``str``, ``[i32]`` …"""
Metadata = dict[str, tuple[Kind, Any]]
"""Key to value type and value, in file order."""

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""``tokenizer.ggml.token_type``."""

LOOKS_SPECIAL = re.compile(r"<\|.*\|>", re.DOTALL)
SIZED_NAME = re.compile(
    r"(?P<base>.+?)[-_ :](?P<size>\d+(?:\.\d+)?[bm](?:-a\d+(?:\.\d+)?b)?)(?:[-_ ](?P<rest>.+))?",
    re.IGNORECASE,
)
VERSION = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
PLAIN_WORD = re.compile(r"(?!v\d)[^\W\dA-Z_][^\WA-Z_]*")
"""A word in lower case that is no version."""
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
    license_id: str | None,
    generation_config: Mapping[str, Any],
) -> Metadata:
    """``general.*`` and the architecture's own keys.

    Args:
        arch: the model's numbers.
        name: what the model is called, ``Qwen3-0.6B``; size and variant are read off it.
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
    data.update(_names(name, arch))
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


def _names(name: str, arch: Architecture) -> Metadata:
    words = name.replace("_", "-").split("-")
    data: Metadata = {
        "general.name": (
            "str",
            " ".join(w.title() if PLAIN_WORD.fullmatch(w) else w for w in words),
        )
    }
    found = SIZED_NAME.fullmatch(name)
    if found is None:
        data["general.size_label"] = ("str", _size_label_of(arch))
        return data
    rest = (found["rest"] or "").split("-")
    versions = [w for w in rest if VERSION.fullmatch(w)]
    finetune = "-".join(w for w in rest if w not in versions)
    if versions:
        data["general.version"] = ("str", "-".join(versions))
    if finetune:
        data["general.finetune"] = ("str", finetune)
    data["general.basename"] = ("str", found["base"])
    data["general.size_label"] = ("str", found["size"].upper())
    return data


def _size_label_of(arch: Architecture) -> str:
    parameters = parameter_count(arch)
    if not arch.is_moe:
        return size_label(parameters)
    others = expert_parameter_count(arch) // arch.num_experts * (arch.num_experts - 1)
    return f"{arch.num_experts}x{size_label(parameters - others)}"


def size_label(parameters: int) -> str:
    """A parameter count for people, of two digits or more: ``596M``, ``8.2B``."""
    for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters > scale or scale == 10**3:
            value = parameters / scale
            decimals = max(0, 2 - len(str(round(value)).lstrip("0")))
            return f"{value:.{decimals}f}{letter}"
    raise AssertionError


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
    data["tokenizer.ggml.add_eos_token"] = ("bool", False)
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
    check_kind(path, data)
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
        extra = [_added(t) for t in added]
    except (TypeError, KeyError, ValueError) as e:
        raise InvalidFile(
            str(path),
            found=f"{type(e).__name__}: {e}",
            expected="model.vocab, model.merges and added_tokens of a BPE tokenizer",
            hint="get tokenizer.json again from the model's repository",
        ) from e
    return vocab, lines, extra


def _added(token: Any) -> tuple[int, str, bool]:
    at, text = token["id"], token["content"]
    if type(at) is not int or not isinstance(text, str):
        raise TypeError("an added token is not an id and a text")
    return at, text, bool(token.get("special"))


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge
    if not (isinstance(left, str) and isinstance(right, str)):
        raise TypeError("a merge is not a pair of strings")
    return left, right
