"""The tokens of a checkpoint or GGUF file, held against Qwen3's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from qwharf.formats.checkpoint import read_json
from qwharf.formats.gguf import GgufFile
from qwharf.formats.opening import is_file, parse_json, read_bounded
from qwharf.formats.tokenizer import CONTROL, MAX_TOKENIZER_BYTES, USER_DEFINED
from qwharf.inspection.report import Vocabulary

FIRST_ADDED_ID = 151_643
ADDED = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>",
    "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
"""Qwen3's tokens after the 151,643 of the byte-pair vocabulary, in id order."""
UNUSED = 5
SHOWN = 64


def of_folder(folder: Path, config: Mapping[str, Any], rows: int | None) -> Vocabulary | None:
    """From ``tokenizer.json``; ``None`` where there is none.

    Raises:
        InvalidFile: it is damaged.
    """
    path = folder / "tokenizer.json"
    if not is_file(path):
        return None
    data = parse_json(path, read_bounded(path, MAX_TOKENIZER_BYTES))
    data = data if isinstance(data, dict) else {}
    model = data.get("model")
    pieces = model.get("vocab") if isinstance(model, dict) else None
    added = data.get("added_tokens")
    ids = {
        str(token.get("content")): token["id"]
        for token in (added if isinstance(added, list) else [])
        if isinstance(token, dict) and _is_id(token.get("id"))
    }
    used = set(ids.values())
    if isinstance(pieces, dict):
        used |= {i for i in pieces.values() if _is_id(i)}
    settings = folder / "tokenizer_config.json"
    named = _named(config, read_json(settings) if is_file(settings) else {}, ids)
    return _vocabulary("tokenizer.json", (len(used), max(used, default=-1)), rows, ids, named)


def of_gguf(file: GgufFile, rows: int | None) -> Vocabulary | None:
    """From a file read with its arrays; ``None`` where it has no tokens."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    types = file.metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list):
        return None
    if not isinstance(types, list) or len(types) != len(tokens):
        types = [1] * len(tokens)
    ids = {
        str(t): i
        for i, (t, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    }
    named = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        value = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if _is_id(value):
            named[name] = value
    used = len(tokens) - types.count(UNUSED)
    end = named.get("eos")
    text = str(tokens[end]) if end is not None and end < len(tokens) else None
    return _vocabulary("metadata", (used, len(tokens) - 1), rows, ids, named, text)


def _vocabulary(
    source: str,
    sizes: tuple[int, int],
    rows: int | None,
    ids: Mapping[str, int],
    named: Mapping[str, int],
    end: str | None = None,
) -> Vocabulary:
    tokens, largest = sizes
    ordered = sorted(ids, key=lambda text: ids[text])
    by_id = {i: text for text, i in ids.items()}
    own = all(ids.get(text) == FIRST_ADDED_ID + n for n, text in enumerate(ADDED))
    return Vocabulary(
        source=source,
        tokens=tokens,
        largest_id=largest,
        rows=rows,
        special=_some(ordered),
        added=_some([t for t in ordered if t not in ADDED]),
        missing=tuple(t for t in ADDED if t not in ids),
        is_qwen3=own and tokens >= FIRST_ADDED_ID + len(ADDED),
        ids=dict(named),
        end=end if end is not None else by_id.get(named.get("eos", -1)),
    )


def _some(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(texts[:SHOWN])


def _named(
    config: Mapping[str, Any], settings: Mapping[str, Any], ids: Mapping[str, int]
) -> dict[str, int]:
    """What the tokenizer's own settings say, else ``config.json``."""
    named = {}
    for name in ("bos", "eos", "pad"):
        text = settings.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        value = ids.get(text) if isinstance(text, str) else None
        if value is None:
            value = config.get(f"{name}_token_id")
            value = value[0] if isinstance(value, list) and value else value
        if _is_id(value):
            named[name] = value
    return named


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
