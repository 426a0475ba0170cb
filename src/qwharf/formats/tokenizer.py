"""A checkpoint's own tokenizer, from ``tokenizer.json`` or from a GGUF file's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwharf.errors import InvalidFile
from qwharf.formats.gguf import read_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2, 2.5 and 3 cut text before BPE (``tokenizer.json`` of the released checkpoints)."""

CONTROL, USER_DEFINED = 3, 4


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
    if not path.is_file():
        raise InvalidFile(
            str(folder),
            found="no tokenizer.json",
            expected="the checkpoint's tokenizer",
            hint="fetch tokenizer.json into the folder",
        )
    try:
        return Backend.from_file(str(path))
    except Exception as e:  # the library raises plain Exception for a damaged file
        raise InvalidFile(
            str(path), found=str(e)[:200], expected="a tokenizer", hint="fetch it again"
        ) from e


def _from_gguf(path: Path) -> Backend:
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    data = read_gguf(path, keep_arrays=True).metadata
    if data.get("tokenizer.ggml.model") != "gpt2" or data.get("tokenizer.ggml.pre") != "qwen2":
        raise InvalidFile(
            str(path),
            found=f"tokenizer {data.get('tokenizer.ggml.pre')!r}",
            expected="'qwen2', which Qwen3 uses",
        )
    tokens = _texts(path, data, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ", 1)) for m in _texts(path, data, "tokenizer.ggml.merges")]
    types = data.get("tokenizer.ggml.token_type") or []
    added = {i for i, t in enumerate(types) if t in (CONTROL, USER_DEFINED)}
    # The added tokens are in the vocabulary too, so that they keep their ids; no merge makes them.
    vocabulary = {t: i for i, t in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocabulary, merges=[(a, b) for a, b in merges])
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
    except Exception as e:  # the library raises plain Exception for a damaged vocabulary
        raise InvalidFile(str(path), found=str(e)[:200], expected="a BPE vocabulary") from e
    return backend


def _texts(path: Path, data: Any, key: str) -> list[str]:
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(t, str) for t in value):
        raise InvalidFile(str(path), found=f"no {key}", expected="a list of texts")
    return value
