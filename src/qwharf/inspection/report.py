"""What inspection finds: plain frozen data, the JSON of ``qwharf inspect --json``.

``None`` means "not known" or "not there"; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwharf.types import Architecture, Format, Mode, Sampling

What = Literal["model", "weights", "adapter", "importance matrix", "vocabulary", "other"]
"""weights: tensors without a configuration; vocabulary: a model's file without its tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of what was inspected."""

    name: str
    size_bytes: int
    tensors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as it is stored."""

    name: str
    type: str
    """As its container names it: ``Q4_K``, ``BF16``, ``U32``."""
    shape: tuple[int, ...]
    """In torch's order."""
    size_bytes: int
    file: str
    kind: str
    """What it is in a Qwen3, by its GGUF name: ``attn_q``, ``ffn_down_exps``; or ``other``."""
    layer: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors that are alike."""

    name: str
    """The type, or the kind."""
    matrices: int
    """Matrices and vectors of the model; a quantised one is stored as several tensors."""
    tensors: int
    size_bytes: int
    types: Mapping[str, int]
    """How many matrices are of which type (that of their largest part), the commonest first."""
    shapes: tuple[tuple[int, ...], ...]
    """The shapes found, commonest first; at most four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The chat template, held against what Qwen3's templates render."""

    characters: int
    sha256: str
    """Of its text without white space at the ends."""
    kind: str | None
    """The Qwen3 template that it renders like, or comes nearest to; ``None``: none of them."""
    published: bool
    """Its text is the published one, to the letter."""
    conversations: int
    """How many conversations were rendered."""
    differs_in: tuple[str, ...]
    """Those that it renders differently from ``kind``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokenizer's tokens."""

    source: str
    """The file, or the GGUF's own metadata."""
    tokens: int
    """Ids in use."""
    largest_id: int
    rows: int | None
    """Rows of the embedding; more than the tokens where it is padded."""
    special: tuple[str, ...]
    """Control tokens and others that no merge makes, in id order; at most 64."""
    added: tuple[str, ...]
    """Of these, those that Qwen3 has not; at most 64."""
    missing: tuple[str, ...]
    """Of Qwen3's own 26, those that are not there."""
    is_qwen3: bool
    """The ids of Qwen3's added tokens, and the number of tokens before them, are Qwen3's own."""
    ids: Mapping[str, int]
    """Of ``bos``, ``eos``, ``pad``, where they are named."""
    end: str | None
    """The text of the end token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How long a conversation may be."""

    native_tokens: int
    max_tokens: int
    """With positions stretched (YaRN), where the family's member allows it."""
    positions: int
    """``max_position_embeddings``, ``context_length``."""
    rope_theta: float
    yarn_factor: float | None
    """Baked into the file: it holds for short conversations too."""
    yarn_original_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter."""

    rank: int | None
    alpha: float | None
    base: str | None
    """The model that it belongs to, as it says itself."""
    modules: tuple[str, ...]
    """Kinds of tensors that it changes."""
    layers: tuple[int, ...]
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Memory at one context, in one request's case, f16 KV cache."""

    context_tokens: int
    weight_bytes: int
    kv_bytes: int
    buffer_bytes: int | None
    """Of llama.cpp on a processor; ``None``: another engine's, which is not known here."""
    total_bytes: int
    """The sum of what is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """Something that a released Qwen3 of that format would not show."""

    what: str
    meaning: str
    """What follows from it, or what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything found at one path."""

    path: Path
    what: What
    container: Literal["gguf", "safetensors", "mlx"]
    format: Format | None = None
    name: str | None
    relative: str | None = None
    """The member of the family that has this shape."""
    architecture: Architecture | None = None
    parameters: int | None = None
    active_parameters: int | None = None
    size_bytes: int
    """Of the tensors."""
    bits_per_weight: float | None = None
    files: tuple[File, ...]
    context: Context | None = None
    thinking: str | None = None
    by_type: tuple[Group, ...]
    by_kind: tuple[Group, ...]
    metadata: Mapping[str, Any]
    """Of the container, long lists counted; of ``config.json``."""
    vocabulary: Vocabulary | None = None
    template: Template | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    """The generation defaults that travel with the weights."""
    recommended: Mapping[Mode, Sampling] = field(default_factory=dict)
    """What Qwen recommends for this kind of model, by mode."""
    adapter: Adapter | None = None
    needs: tuple[Need, ...] = ()
    oddities: tuple[Oddity, ...] = ()
    tensors: tuple[Tensor, ...] = ()
