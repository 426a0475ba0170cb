"""What a GGUF file says about a model: its parts, its architecture.

The container itself is read by :mod:`qwharf.formats.gguf_reader`. Sources: llama.cpp
``tools/gguf-split`` (names and keys of parts), ``src/llama-model.cpp`` (keys and their defaults).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwharf.errors import InvalidFile, UnsupportedArchitecture
from qwharf.formats.gguf_reader import REFETCH, GgufFile, GgufTensor, Skipped, read_gguf
from qwharf.formats.opening import is_file
from qwharf.types import Architecture

__all__ = [
    "GgufFile",
    "GgufTensor",
    "Skipped",
    "all_tensors",
    "architecture_from_gguf",
    "read_gguf",
    "split_parts",
]

MISSING_SHOWN = 100
MAX_LAYERS = 512
MAX_EXPERTS = 1024
"""Llama.cpp's own limits; it aborts beyond them."""


def _invalid(path: Path, found: str, expected: str, hint: str = REFETCH) -> InvalidFile:
    return InvalidFile(str(path), found=found, expected=expected, hint=hint)


# ------------------------------------------------------------------------------------------ splits

_SPLIT = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")


def split_parts(path: Path) -> Sequence[Path]:
    """All parts of a split file of which ``path`` is one, in order; else ``[path]``.

    Raises:
        InvalidFile: a part is missing.
    """
    found = _SPLIT.fullmatch(path.name)
    if found is None:
        return [path]
    number, count = int(found["number"]), int(found["count"])
    if not 1 <= number <= count:
        raise _invalid(
            path, f"part {number} of {count}", f"a part from 1 to {count}", "check the name"
        )
    parts = [
        path.with_name(f"{found['prefix']}-{n:05d}-of-{count:05d}.gguf")
        for n in range(1, count + 1)
    ]
    missing = [p.name for p in parts if not is_file(p)]
    if missing:
        raise InvalidFile(
            str(path),
            found=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            expected=f"all {count} parts in one folder",
            hint="fetch the missing parts into the same folder",
            missing=missing[:MISSING_SHOWN],
        )
    return parts


def all_tensors(file: GgufFile) -> Mapping[str, GgufTensor]:
    """The tensors of a file and, if it is the first part of a split one, of all other parts.

    Raises:
        InvalidFile: a part is missing, damaged, or not of this file; or ``file`` is a later part,
            which has no metadata.
    """
    count = file.metadata.get("split.count", 1)
    if count in (0, 1):
        return file.tensors
    number = file.metadata.get("split.no")
    parts = split_parts(file.path)
    if number != 0 and len(parts) > 1:
        raise _invalid(
            file.path, f"part {number!r}, counted from 0", "the first part", f"name {parts[0].name}"
        )
    if count != len(parts):
        raise _invalid(
            file.path,
            f"{len(parts)} file{'s' if len(parts) > 1 else ''} by the name",
            f"{count!r} parts named {_prefix(file.path)}-00001-of-{_five(count)}.gguf and so on",
            "give the parts the names they were published under",
        )
    tensors = dict(file.tensors)
    for n, path in enumerate(parts[1:], 1):
        part = read_gguf(path)
        if (part.metadata.get("split.no"), part.metadata.get("split.count")) != (n, count):
            raise _invalid(
                path,
                f"split.no = {part.metadata.get('split.no')!r} "
                f"and split.count = {part.metadata.get('split.count')!r}",
                f"{n} and {count}",
            )
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise _invalid(path, f"tensor {min(twice)!r}, which another part has", "each once")
        tensors |= part.tensors
    total = file.metadata.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise _invalid(file.path, f"{len(tensors)} tensors in all parts", f"{total!r}")
    return tensors


def _prefix(path: Path) -> str:
    found = _SPLIT.fullmatch(path.name)
    return found["prefix"] if found else path.name.removesuffix(".gguf")


def _five(count: object) -> str:
    return f"{count:05d}" if isinstance(count, int) else "?????"


# ------------------------------------------------------------------------------------ architecture


def architecture_from_gguf(file: GgufFile) -> Architecture:
    """The model's numbers, from metadata and tensor shapes, as llama.cpp takes them.

    Args:
        file: the file, or the first part of a split one (the other parts' headers are read too).

    Raises:
        UnsupportedArchitecture: it is not a Qwen3.
        InvalidFile: a key is missing or impossible, or a part is missing.
    """
    kind = file.metadata.get("general.architecture")
    if kind not in ("qwen3", "qwen3moe"):
        if kind is None and file.metadata.get("split.no"):
            all_tensors(file)  # raises, and names the first part
        raise UnsupportedArchitecture(
            str(file.path),
            found=f"architecture {str(kind)[:60]!r}",
            expected="qwen3 or qwen3moe",
            hint="qwharf runs Qwen3 models and fine-tunes of them",
        )
    tensors = all_tensors(file)
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise _invalid(file.path, "no token_embd.weight", "the token embedding")
    moe = kind == "qwen3moe"
    keys = _Keys(file, kind)
    hidden, heads = keys.number("embedding_length"), keys.number("attention.head_count")
    yarn = keys.value("rope.scaling.type") == "yarn"
    return Architecture(
        model_type="qwen3_moe" if moe else "qwen3",
        num_hidden_layers=keys.number("block_count", most=MAX_LAYERS),
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=keys.number("attention.head_count_kv", default=heads),
        # Without the key the loader divides, which is wrong for most Qwen3; the shapes will tell.
        head_dim=keys.number("attention.key_length", default=hidden // heads),
        # Not used, and not always written, in a mixture of experts.
        intermediate_size=keys.number("feed_forward_length", default=hidden if moe else None),
        vocab_size=embedding.shape[0],
        tie_word_embeddings="output.weight" not in tensors,
        max_position_embeddings=keys.number("context_length"),
        rope_theta=keys.real("rope.freq_base", 10_000.0),
        rms_norm_eps=keys.real("attention.layer_norm_rms_epsilon"),
        num_experts=keys.number("expert_count", most=MAX_EXPERTS) if moe else 0,
        num_experts_per_tok=keys.number("expert_used_count", most=MAX_EXPERTS) if moe else 0,
        moe_intermediate_size=keys.number("expert_feed_forward_length") if moe else 0,
        bos_token_id=_token(file, "bos"),
        eos_token_id=_token(file, "eos"),
        yarn_factor=keys.real("rope.scaling.factor") if yarn else None,
        yarn_original_context_tokens=keys.number("rope.scaling.original_context_length")
        if yarn
        else None,
    )


class _Keys:
    """The metadata below one architecture's prefix."""

    def __init__(self, file: GgufFile, kind: str) -> None:
        self.file = file
        self.kind = kind

    def value(self, key: str) -> Any:
        return self.file.metadata.get(f"{self.kind}.{key}")

    def number(self, key: str, *, default: int | None = None, most: int = 2**31 - 1) -> int:
        value: Any = self.value(key)
        value = default if value is None else value
        if not _is_int(value) or not 0 < value <= most:
            raise self.wrong(key, f"a whole number from 1 to {most}")
        return int(value)

    def real(self, key: str, default: float | None = None) -> float:
        value: Any = self.value(key)
        value = default if value is None else value
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not (math.isfinite(value) and value > 0):
            raise self.wrong(key, "a positive number")
        return float(f"{value:.7g}")  # stored as f32: 1e-6 comes back as 9.999999974752427e-07

    def wrong(self, key: str, expected: str) -> InvalidFile:
        value = self.value(key)
        found = f"no {self.kind}.{key}" if value is None else f"{self.kind}.{key} = {value!r:.80}"
        return _invalid(self.file.path, found, expected)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token(file: GgufFile, which: str) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return value if _is_int(value) else None
