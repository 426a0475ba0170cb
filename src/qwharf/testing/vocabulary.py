"""Tokenizers for synthetic checkpoints: Qwen's own vocabulary, or a tiny one made on the spot.

Qwen published its vocabulary as byte-pair ranks (the ``tiktoken`` form) and as ``tokenizer.json``.
The ranks come with the package ``dashscope``; the merges of ``tokenizer.json`` follow from them:
a token's merge is the pair that byte-pair encoding reaches from its bytes with the ranks below its
own, and merges are tried in rank order. The result is checked in the tests against the hash of
the published ``merges.txt``.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qwharf.errors import InvalidFile, UsageError
from qwharf.formats.tokenizer import PATTERN

Vocabulary = Literal["full", "tiny"]

FULL_RANKS = 151_643
ADDED: tuple[tuple[str, bool], ...] = (
    ("<|endoftext|>", True),
    ("<|im_start|>", True),
    ("<|im_end|>", True),
    ("<|object_ref_start|>", True),
    ("<|object_ref_end|>", True),
    ("<|box_start|>", True),
    ("<|box_end|>", True),
    ("<|quad_start|>", True),
    ("<|quad_end|>", True),
    ("<|vision_start|>", True),
    ("<|vision_end|>", True),
    ("<|vision_pad|>", True),
    ("<|image_pad|>", True),
    ("<|video_pad|>", True),
    ("<tool_call>", False),
    ("</tool_call>", False),
    ("<|fim_prefix|>", False),
    ("<|fim_middle|>", False),
    ("<|fim_suffix|>", False),
    ("<|fim_pad|>", False),
    ("<|repo_name|>", False),
    ("<|file_sep|>", False),
    ("<tool_response>", False),
    ("</tool_response>", False),
    ("<think>", False),
    ("</think>", False),
)
"""The tokens after the byte-pair ones, in id order, and whether each is flagged special."""

TINY_PIECES = (
    "the",
    "and",
    "ing",
    "er",
    "on",
    "re",
    "at",
    "en",
    "ou",
    "st",
    "or",
    "it",
    "is",
    "to",
)
TINY_ROWS = 320


@dataclass(frozen=True, slots=True)
class Tokens:
    """A byte-pair vocabulary: ids are positions; each merge makes one later token."""

    pieces: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Ids in use, added tokens included."""
        return len(self.pieces) + len(ADDED)

    def added_id(self, text: str) -> int:
        """The id of an added token."""
        return len(self.pieces) + [t for t, _ in ADDED].index(text)


def vocabulary(kind: Vocabulary) -> Tokens:
    """The tokens of ``full`` (151,643 + 26) or ``tiny`` (a few hundred).

    Raises:
        UsageError: ``full`` without the extra that carries the ranks.
        InvalidFile: the extra's file is not the one expected.
    """
    return _full() if kind == "full" else _tiny()


def byte_letters() -> dict[int, str]:
    """The printable letter that byte-level BPE writes for each byte.

    Printable bytes stand for themselves, the others for the letters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {b: chr(b) for b in printable}
    others = (b for b in range(256) if b not in table)
    table.update({b: chr(0x100 + n) for n, b in enumerate(others)})
    return table


def _full() -> Tokens:
    ranks = _read_ranks(_ranks_path())
    letters = byte_letters()

    def spell(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    ordered = sorted(ranks, key=ranks.__getitem__)
    merges = tuple((spell(a), spell(b)) for a, b in derive_merges(ranks, ordered))
    return Tokens(tuple(map(spell, ordered)), merges)


def _ranks_path() -> Path:
    spec = importlib.util.find_spec("dashscope")  # found, not imported: only its data is wanted
    if spec is None or spec.origin is None:
        raise UsageError(
            "the full vocabulary",
            found="no package `dashscope`, which carries Qwen's token ranks",
            expected="the extra `synth`",
            hint="pip install 'qwharf[synth]'",
        )
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = path.read_bytes().splitlines()
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in lines)}
    except (OSError, ValueError) as e:
        raise InvalidFile(
            str(path),
            found=str(e),
            expected="lines of a base64 token and its rank",
            hint="pip install --force-reinstall 'qwharf[synth]'",
        ) from e
    if sorted(ranks.values()) != list(range(FULL_RANKS)):
        raise InvalidFile(
            str(path),
            found=f"{len(ranks):,} ranks",
            expected=f"the ranks 0 to {FULL_RANKS - 1:,}",
            hint="pip install --force-reinstall 'qwharf[synth]'",
        )
    return ranks


def derive_merges(ranks: dict[bytes, int], ordered: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The merge behind every token of two bytes or more, in rank order."""
    for token in ordered:
        if len(token) < 2:
            continue
        limit = ranks[token]
        cuts = [
            cut
            for cut in range(1, len(token))
            if ranks.get(token[:cut], limit) < limit and ranks.get(token[cut:], limit) < limit
        ]
        if len(cuts) == 1:  # the encoding must end in a cut of this kind
            yield token[: cuts[0]], token[cuts[0] :]
            continue
        parts = _encode_below(ranks, token, limit)
        if len(parts) != 2:
            raise InvalidFile(
                "the token ranks",
                found=f"{token!r} at rank {limit} that merges to {len(parts)} parts",
                expected="2",
                hint="pip install --force-reinstall 'qwharf[synth]'",
            )
        yield parts[0], parts[1]


def _encode_below(ranks: dict[bytes, int], token: bytes, limit: int) -> list[bytes]:
    """Byte-pair encode ``token`` with the ranks below ``limit``."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while True:
        found = [
            (ranks.get(a + b, limit), at) for at, (a, b) in enumerate(itertools.pairwise(parts))
        ]
        best, at = min(found, default=(limit, 0))
        if best >= limit:
            return parts
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _tiny() -> Tokens:
    letters = byte_letters()
    pieces = [letters[b] for b in sorted(letters)]
    merges: list[tuple[str, str]] = []
    for word in TINY_PIECES:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    return Tokens(tuple(pieces), tuple(merges))


# --------------------------------------------------------------------------------------- files


def tokenizer_json(tokens: Tokens) -> dict[str, Any]:
    """``tokenizer.json`` as Qwen ships it."""
    first = len(tokens.pieces)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": first + n, "content": text, **_flags(special)}
            for n, (text, special) in enumerate(ADDED)
        ],
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
                _byte_level(trim_offsets=False),
            ],
        },
        "post_processor": _byte_level(trim_offsets=False),
        "decoder": _byte_level(trim_offsets=False),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: n for n, piece in enumerate(tokens.pieces)},
            "merges": [[a, b] for a, b in tokens.merges],
        },
    }


def _flags(special: bool) -> dict[str, bool]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {**off, "special": special}


def _byte_level(*, trim_offsets: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": trim_offsets,
        "use_regex": False,
    }


def tokenizer_config(tokens: Tokens, chat_template: str) -> dict[str, Any]:
    """``tokenizer_config.json`` as Qwen ships it, with ``chat_template`` as the template."""
    first = len(tokens.pieces)
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first + n): {"content": text, **_flags(special)}
            for n, (text, special) in enumerate(ADDED)
        },
        "additional_special_tokens": [t for t, special in ADDED[1:] if special],
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def to_json(data: Any) -> str:
    """JSON as checkpoints carry it: indented, non-ASCII kept, no newline at the end."""
    return json.dumps(data, ensure_ascii=False, indent=2)
