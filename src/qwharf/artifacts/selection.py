"""Which files of a repository or folder belong to an artifact: the same rule for every way in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from qwharf.errors import FormatUnavailable
from qwharf.types import Format

COMPANIONS = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "hf_quant_config.json",
        "merges.txt",
        "quant_config.json",
        "quantize_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
)
"""Beside the weights of a checkpoint: what an engine or a converter reads."""

LEGAL = re.compile(r"(?i)(licen[cs]e|notice)(\.(txt|md))?")
INDEX = re.compile(r"model\.safetensors\.index\.json")
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
SPLIT = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The files of an artifact."""

    names: tuple[str, ...]
    """As they are called in the repository or folder, sorted."""
    entry: str | None
    """The file to hand to an engine; ``None``: the folder."""


def is_companion(name: str) -> bool:
    """Whether ``name`` (at the top of the folder) goes along with weights."""
    return name in COMPANIONS or LEGAL.fullmatch(name) is not None


def select(names: Iterable[str], format: Format, *, subject: str) -> Selection:
    """Choose the files of ``format``: its weights and what belongs to them, nothing else.

    Args:
        names: all files, relative, ``/`` separated.
        format: of the weights; for ``gguf`` the file names tell the quantisation.
        subject: the repository or folder, for errors.

    Raises:
        FormatUnavailable: there are no such weights; says what is there.
    """
    known = sorted(set(names))
    if format.container == "gguf":
        weights = _gguf(known, format.quantization)
        extra = [n for n in known if LEGAL.fullmatch(n)]
    else:
        weights = [n for n in known if WEIGHTS.fullmatch(n)]
        extra = [n for n in known if is_companion(n) or INDEX.fullmatch(n)]
    if not weights:
        raise FormatUnavailable(
            subject,
            found=_what_is_there(known),
            expected=f"weights as {format}",
            hint="see `qwharf show MODEL` for the formats that can be had",
        )
    entry = weights[0] if format.container == "gguf" else None
    return Selection(names=tuple(sorted({*weights, *extra})), entry=entry)


def gguf_quantization(name: str) -> str | None:
    """The quantisation that a ``.gguf`` file name ends in, lower-case: ``…-Q4_K_M.gguf``."""
    match = SPLIT.fullmatch(name)
    stem = match["prefix"] if match else name[:-5] if name.lower().endswith(".gguf") else ""
    # The last word that begins like a type; the name may go on (`-Q8_0-v2` is not Q8_0's file).
    found = re.search(
        r"(?i)(?:^|[-._/])(i?q\d(?:_[a-z0-9]+)*|bf16|f16|f32|mxfp4|tq\d_\d)$",
        stem,
    )
    return found[1].lower() if found else None


def _gguf(names: list[str], quantization: str) -> list[str]:
    files = [n for n in names if n.lower().endswith(".gguf")]
    named = [n for n in files if gguf_quantization(n) == quantization]
    # Several of one quantisation (in folders, or an odd copy): the shortest prefix is the file.
    groups: dict[str, list[str]] = {}
    for name in named:
        match = SPLIT.fullmatch(name)
        groups.setdefault(match["prefix"] if match else name, []).append(name)
    if not groups:
        return []
    return groups[min(groups, key=lambda prefix: (len(prefix), prefix))]


def _what_is_there(names: list[str]) -> str:
    found = {f"gguf:{q}" for n in names if (q := gguf_quantization(n))}
    found |= {"safetensors" for n in names if n.endswith(".safetensors")}
    found |= {
        f"{n.rsplit('.', 1)[1]} files"
        for n in names
        if n.endswith((".bin", ".pt", ".pth", ".ckpt"))
    }
    return ", ".join(sorted(found)) or f"{len(names)} files, none of them weights"
