"""What a comparison finds: plain frozen data, the JSON of ``qwharf fidelity --json``.

A is the reference, B what is measured against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwharf.types import Format

Through = Literal["forward", "llama.cpp"]
"""forward: qwharf's own float32 pass over the dequantised weights; llama.cpp: the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two models."""

    path: Path
    name: str
    format: Format
    size_bytes: int
    """Of the weight files."""
    bits_per_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixError:
    """How far one matrix or vector of B is from A's."""

    name: str
    """In a checkpoint."""
    kind: str
    """By its GGUF name: ``attn_q``, ``ffn_down_exps``."""
    layer: int | None
    elements: int
    relative: float
    """Frobenius norm of the difference over that of A's (over 1 where A's is 0)."""
    max_abs: float
    """The largest difference of one element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupError:
    """Several matrices as one: the norm of all their differences over that of all of A's."""

    name: str
    matrices: int
    elements: int
    relative: float
    max_abs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightErrors:
    """The weights of B against A's."""

    total: GroupError
    by_kind: tuple[GroupError, ...]
    by_layer: tuple[GroupError, ...]
    """Named by the layer's number; what belongs to no layer is not in it."""
    matrices: tuple[MatrixError, ...]
    notes: tuple[str, ...] = ()
    """What could only be compared in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputErrors:
    """What A and B predict on a text, token by token."""

    text: str
    """A file's name, or ``qwharf's own``."""
    tokens: int
    predictions: int
    chunk_tokens: int
    """The text is cut into pieces of so many tokens; each is read from its beginning."""
    through: tuple[Through, Through]
    """How A's and B's predictions were made."""
    kl_mean: float
    """Kullback-Leibler divergence of B's next-token distribution from A's, in nats."""
    kl_median: float
    kl_99: float
    """99 in 100 predictions diverge no more than this."""
    kl_max: float
    same_top_1: float
    """Share of predictions whose most probable token is the same."""
    perplexity_a: float
    perplexity_b: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """A whole comparison; a part that was not asked for is ``None``."""

    a: Side
    b: Side
    weights: WeightErrors | None
    outputs: OutputErrors | None
