"""A checkpoint's own tokenizer, from ``tokenizer.json`` or from a GGUF file's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import read_gguf
from qwharf.formats.opening import parse_json, read_bounded

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2, 2.5 and 3 cut text before BPE (``tokenizer.json`` of the released checkpoints)."""

PRE_TOKENIZERS = ("qwen2", "deepseek-r1-qwen")
"""Llama.cpp's names for one and the same way to cut text; the second is that of distilled models.
"""
OTHER_TOKENIZER = "use the tokenizer.json of the Qwen3 model that this one was made from"
CONTROL, USER_DEFINED = 3, 4
MAX_TOKENIZER_BYTES = 64 << 20
"""Qwen3's own has 11 MB."""


class Tokenizer:
    """Text to token ids and back."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """Token ids; ``<|im_start|>`` and its like become their single tokens; nothing is added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """Text, special tokens included."""
        return str(self._backend.decode(ids, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """The id of one token as it is spelt in the vocabulary."""
        found: int | None = self._backend.token_to_id(token)
        return found


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder or a ``.gguf`` file.

    Raises:
        InvalidFile: there is none, or it is damaged.
    """
    return Tokenizer(_from_folder(path) if path.is_dir() else _from_gguf(path))


def _from_folder(folder: Path) -> Backend:
    from tokenizers import Tokenizer as Backend

    path = folder / "tokenizer.json"
    raw = read_bounded(path, MAX_TOKENIZER_BYTES)
    check_kind(path, parse_json(path, raw))
    with _refused(path):
        return Backend.from_buffer(raw)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What the library says of a damaged vocabulary: plain exceptions, and panics."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as e:
        raise InvalidFile(
            str(path),
            found=str(e)[:200],
            expected="a BPE vocabulary",
            hint="fetch the tokenizer again",
        ) from e


def check_kind(path: Path, data: Any) -> None:
    """Whether a ``tokenizer.json`` cuts text as Qwen's does; what follows the cut is its own.

    llama.cpp only knows the word pattern by name, so it must really be the one of that name; and a
    pattern from outside could take for ever.

    Raises:
        InvalidFile: another kind of tokenizer.
    """
    model = data.get("model") if isinstance(data, dict) else None
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE" or model.get("byte_fallback"):
        raise InvalidFile(
            str(path),
            found=f"a tokenizer of type {str(kind)[:80]!r}",
            expected="byte-level BPE, as Qwen3 has",
            hint=OTHER_TOKENIZER,
        )
    for part, expected in (("pre_tokenizer", PATTERN), ("normalizer", "NFC")):
        found = _steps(data.get(part))
        if found != [expected] and (found or part == "pre_tokenizer"):
            raise InvalidFile(
                str(path),
                found=f"the {part} {found[0][:200]!r}" if found else f"no {part}",
                expected=f"Qwen's, {expected!r}",
                hint="llama.cpp would split text differently from this tokenizer; "
                + OTHER_TOKENIZER,
            )


def _steps(node: Any, depth: int = 0) -> list[str]:
    """What a pre-tokenizer splits by, or a normalizer does, one after the other."""
    if not isinstance(node, dict) or depth > 4:
        return []
    kind = node.get("type")
    if kind == "Sequence":
        parts = node.get("pretokenizers", node.get("normalizers"))
        items = parts if isinstance(parts, list) else []
        return [p for item in items for p in _steps(item, depth + 1)]
    if kind == "Split":
        pattern = node.get("pattern")
        return [str(pattern.get("Regex"))] if isinstance(pattern, dict) else [str(pattern)]
    if kind == "ByteLevel" and not node.get("use_regex", True):
        return []
    return [str(kind)]


def _from_gguf(path: Path) -> Backend:
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    data = read_gguf(path, keep_arrays=True).metadata
    pre = data.get("tokenizer.ggml.pre")
    if data.get("tokenizer.ggml.model") != "gpt2" or pre not in PRE_TOKENIZERS:
        raise InvalidFile(
            str(path), found=f"tokenizer {pre!r:.80}", expected="'qwen2', which Qwen3 uses"
        )
    tokens = _list(path, data, "tokenizer.ggml.tokens", str)
    merges = [m.partition(" ") for m in _list(path, data, "tokenizer.ggml.merges", str)]
    types = _list(path, data, "tokenizer.ggml.token_type", int)
    added = {i for i, t in enumerate(types) if t in (CONTROL, USER_DEFINED)}
    # The added tokens are in the vocabulary too, so that they keep their ids; no merge makes them.
    vocabulary = {t: i for i, t in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise InvalidFile(str(path), found="a token twice", expected="distinct tokens")
    with _refused(path):
        model = models.BPE(vocab=vocabulary, merges=[(a, b) for a, _, b in merges])
        backend = Backend(model)
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        for i in sorted(added):
            control = types[i] == CONTROL
            backend.add_tokens([AddedToken(tokens[i], normalized=False, special=control)])
            if backend.token_to_id(tokens[i]) != i:
                raise ValueError(f"token {tokens[i]!r} cannot have id {i}")
    return backend


def _list(path: Path, data: Any, key: str, kind: type) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(t, kind) for t in value):
        raise InvalidFile(str(path), found=f"no {key}", expected=f"a list of {kind.__name__}")
    return value
