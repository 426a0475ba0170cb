"""What must hold before a GGUF file may be given to llama.cpp.

Some bad metadata makes llama.cpp abort instead of reporting an error (block_count 0 or 2^31,
context_length 0, token ids beyond the vocabulary …), and some loads and then answers nonsense. Each
is refused here, with the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import (
    GgufFile,
    GgufTensor,
    Skipped,
    architecture_from_gguf,
    read_gguf,
    split_parts,
)
from qwharf.formats.tensors import gguf_tensors
from qwharf.types import Architecture

MAX_LAYERS = 1024
MAX_CONTEXT_TOKENS = 16_777_216
REMAKE = "convert the checkpoint again with `qwharf convert`"


def validate_for_engine(file: GgufFile) -> Architecture:
    """Check a file (all parts of a split one) and return its architecture.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the key or tensor, what was found and expected.
    """
    arch = architecture_from_gguf(file)
    _check_numbers(file, arch)
    _check_vocabulary(file, arch)
    tensors: dict[str, GgufTensor] = {}
    for part in split_parts(file.path):
        tensors.update((file if part == file.path else read_gguf(part)).tensors)
    _check_tensors(file, arch, tensors)
    return arch


def _refuse(file: GgufFile, found: str, expected: str) -> InvalidFile:
    return InvalidFile(str(file.path), found=found, expected=expected, hint=REMAKE)


def _check_numbers(file: GgufFile, a: Architecture) -> None:
    if a.num_hidden_layers > MAX_LAYERS:
        raise _refuse(file, f"block_count = {a.num_hidden_layers}", f"at most {MAX_LAYERS}")
    if a.max_position_embeddings > MAX_CONTEXT_TOKENS:
        raise _refuse(
            file, f"context_length = {a.max_position_embeddings}", f"at most {MAX_CONTEXT_TOKENS}"
        )
    if a.num_attention_heads % a.num_key_value_heads:
        raise _refuse(
            file,
            f"{a.num_attention_heads} heads on {a.num_key_value_heads} KV heads",
            "a multiple",
        )
    kind = file.metadata["general.architecture"]
    if file.metadata.get(f"{kind}.attention.value_length", a.head_dim) != a.head_dim:
        raise _refuse(file, "value_length that differs from key_length", str(a.head_dim))
    if a.is_moe and a.num_experts_per_tok > a.num_experts:
        raise _refuse(file, f"{a.num_experts_per_tok} of {a.num_experts} experts used", "fewer")
    for key, value in file.metadata.items():
        if key.startswith(f"{kind}.") and isinstance(value, float) and not math.isfinite(value):
            raise _refuse(file, f"{key} = {value}", "a finite number")


def _length(value: object) -> int | None:
    if isinstance(value, Skipped):
        return value.length
    return len(value) if isinstance(value, list) else None


def _check_vocabulary(file: GgufFile, a: Architecture) -> None:
    model, pre = (file.metadata.get(f"tokenizer.ggml.{k}") for k in ("model", "pre"))
    if model != "gpt2" or pre != "qwen2":
        raise _refuse(file, f"tokenizer {model!r} / {pre!r}", "'gpt2' / 'qwen2', as Qwen3 has")
    rows = _length(file.metadata.get("tokenizer.ggml.tokens"))
    if rows != a.vocab_size:
        raise _refuse(file, f"{rows} tokens", f"{a.vocab_size}, one per row of the embedding")
    types = file.metadata.get("tokenizer.ggml.token_type")
    if types is not None and _length(types) != rows:
        raise _refuse(file, f"{_length(types)} token types", f"{rows}")
    if not _length(file.metadata.get("tokenizer.ggml.merges")):
        raise _refuse(file, "no tokenizer.ggml.merges", "the BPE merges")
    for key, value in file.metadata.items():
        if (
            key.startswith("tokenizer.ggml.")
            and key.endswith("_token_id")
            and not (isinstance(value, int) and 0 <= value < a.vocab_size)
        ):
            raise _refuse(file, f"{key} = {value!r}", f"an id from 0 to {a.vocab_size - 1}")
    if a.eos_token_id is None:
        raise _refuse(file, "no tokenizer.ggml.eos_token_id", "the id of <|im_end|>")


def _check_tensors(file: GgufFile, a: Architecture, tensors: Mapping[str, GgufTensor]) -> None:
    wanted = {t.name: t for t in gguf_tensors(a)}
    for name, spec in wanted.items():
        found = tensors.get(name)
        if found is None:
            raise _refuse(file, f"no tensor {name}", f"{len(wanted)} tensors")
        if found.shape != spec.shape:
            raise _refuse(file, f"{name} of shape {list(found.shape)}", f"{list(spec.shape)}")
    extra = tensors.keys() - wanted.keys()
    if extra:
        raise _refuse(file, f"an unknown tensor {min(extra)}", "a Qwen3's tensors only")
