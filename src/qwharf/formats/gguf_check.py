"""What must hold before a GGUF file may be given to llama.cpp.

Some bad metadata makes llama.cpp abort the process instead of reporting an error (its own
assertions on block_count, experts, rope scaling, repeated tokens), some kills it at the first
request (context_length 0), and some loads and then answers nonsense (a NaN in rope, a wrong id of
the end token). Each is refused here, with the key. Source: llama.cpp ``src/llama-model.cpp``
``load_hparams``, ``src/llama-vocab.cpp`` ``load``, and trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import (
    GgufFile,
    GgufTensor,
    Skipped,
    all_tensors,
    architecture_from_gguf,
    read_gguf,
)
from qwharf.formats.tensors import gguf_tensors
from qwharf.formats.tokenizer import PRE_TOKENIZERS
from qwharf.types import Architecture

MAX_CONTEXT_TOKENS = 16_777_216
ROPE_SCALINGS = (None, "none", "linear", "yarn")
EMPTY_UNLESS_PLAIN = ("expert_group_count", "expert_group_used_count", "nextn_predict_layers")
REMAKE = "convert the checkpoint again with `qwharf convert`, or get another file"


def validate_for_engine(file: GgufFile) -> Architecture:
    """Check a file (all parts of a split one) and return its architecture.

    Raises:
        InvalidFile, UnsupportedArchitecture: with the key or tensor, what was found and expected.
    """
    arch = architecture_from_gguf(file)
    _check_numbers(file, arch)
    _check_vocabulary(file, arch)
    _check_tensors(file, arch, all_tensors(file))
    return arch


def _refuse(file: GgufFile, found: str, expected: str) -> InvalidFile:
    return InvalidFile(str(file.path), found=found, expected=expected, hint=REMAKE)


def _check_numbers(file: GgufFile, a: Architecture) -> None:
    kind = file.metadata["general.architecture"]

    def get(key: str) -> object:
        return file.metadata.get(f"{kind}.{key}")

    if a.max_position_embeddings > MAX_CONTEXT_TOKENS:
        raise _refuse(
            file,
            f"{kind}.context_length = {a.max_position_embeddings}",
            f"at most {MAX_CONTEXT_TOKENS}",
        )
    if a.num_attention_heads % a.num_key_value_heads:
        raise _refuse(
            file,
            f"{kind}.attention.head_count = {a.num_attention_heads}",
            f"a multiple of {kind}.attention.head_count_kv = {a.num_key_value_heads}",
        )
    for key in ("attention.value_length", "rope.dimension_count"):
        if get(key) not in (None, a.head_dim):
            raise _refuse(file, f"{kind}.{key} = {get(key)!r:.80}", f"{a.head_dim}, as key_length")
    if a.head_dim % 2:
        raise _refuse(file, f"{kind}.attention.key_length = {a.head_dim}", "an even number")
    if a.is_moe and a.num_experts_per_tok > a.num_experts:
        raise _refuse(
            file,
            f"{kind}.expert_used_count = {a.num_experts_per_tok}",
            f"at most {kind}.expert_count = {a.num_experts}",
        )
    if not a.is_moe and (get("expert_count") or get("expert_used_count")):
        raise _refuse(file, f"experts in a {kind}", "none in a dense model")
    for key in EMPTY_UNLESS_PLAIN:
        if get(key) not in (None, 0):
            raise _refuse(file, f"{kind}.{key} = {get(key)!r:.80}", "none in a Qwen3")
    if get("rope.scaling.type") not in ROPE_SCALINGS:
        raise _refuse(
            file, f"{kind}.rope.scaling.type = {get('rope.scaling.type')!r:.80}", "linear or yarn"
        )
    for key, value in file.metadata.items():
        if key.startswith(f"{kind}.") and isinstance(value, float) and not math.isfinite(value):
            raise _refuse(file, f"{key!r:.100} = {value}", "a finite number")


def _length(value: object) -> int | None:
    if isinstance(value, Skipped):
        return value.length
    return len(value) if isinstance(value, list) else None


def _check_vocabulary(file: GgufFile, a: Architecture) -> None:
    def get(key: str) -> object:
        return file.metadata.get(f"tokenizer.ggml.{key}")

    def kind(key: str) -> str | None:
        return file.kinds.get(f"tokenizer.ggml.{key}")

    model, pre = get("model"), get("pre")
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise _refuse(
            file,
            f"tokenizer.ggml.model = {model!r:.40} and pre = {pre!r:.40}",
            "'gpt2' and 'qwen2', as Qwen3 has",
        )
    rows = _length(get("tokens"))
    if rows != a.vocab_size or kind("tokens") != "[str]":
        raise _refuse(
            file,
            f"tokenizer.ggml.tokens: {rows} of type {kind('tokens')}",
            f"{a.vocab_size} strings, one per row of the embedding",
        )
    if get("token_type") is not None and (
        _length(get("token_type")) != rows or kind("token_type") != "[i32]"
    ):
        raise _refuse(
            file,
            f"tokenizer.ggml.token_type: {_length(get('token_type'))} of {kind('token_type')}",
            f"{rows} of [i32]",
        )
    if not _length(get("merges")) or kind("merges") != "[str]":
        raise _refuse(file, "no tokenizer.ggml.merges", "the BPE merges")
    for key, value in file.metadata.items():
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < a.vocab_size
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not good:
            raise _refuse(
                file, f"{key!r:.100} = {value!r:.40}", f"an id from 0 to {a.vocab_size - 1}"
            )
    if a.eos_token_id is None:
        raise _refuse(file, "no tokenizer.ggml.eos_token_id", "the id of <|im_end|>")
    _check_distinct(file)


def _check_distinct(file: GgufFile) -> None:
    """Llama.cpp maps texts to ids, and aborts when a text comes twice."""
    tokens = file.metadata["tokenizer.ggml.tokens"]
    if isinstance(tokens, Skipped):
        tokens = read_gguf(file.path, keep_arrays=True).metadata["tokenizer.ggml.tokens"]
    seen: set[str] = set()
    for i, token in enumerate(tokens):
        if token in seen:
            raise _refuse(
                file, f"tokenizer.ggml.tokens[{i}] = {token!r:.60} again", "distinct tokens"
            )
        seen.add(token)
    if "" in seen:
        raise _refuse(file, "an empty string in tokenizer.ggml.tokens", "no empty tokens")


def _check_tensors(file: GgufFile, a: Architecture, tensors: Mapping[str, GgufTensor]) -> None:
    wanted = {t.name: t for t in gguf_tensors(a)}
    for name, spec in wanted.items():
        found = tensors.get(name)
        if found is None:
            raise _refuse(file, f"no tensor {name}", f"all {len(wanted)} tensors")
        if found.shape != spec.shape:
            raise _refuse(
                file, f"{name} of shape {list(found.shape)}", f"{list(spec.shape)}, by the metadata"
            )
        if spec.role in ("norm", "router") and found.type.name not in ("F32", "F16", "BF16"):
            raise _refuse(file, f"{name} as {found.type.name}", "F32")
    extra = tensors.keys() - wanted.keys()
    if extra:
        raise _refuse(file, f"an unknown tensor {min(extra)!r}", "a Qwen3's tensors only")
