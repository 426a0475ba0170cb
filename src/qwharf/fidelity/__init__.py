"""How far a model is from another form of itself: by its weights, and by what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwharf.artifacts.stored import Stored, read_stored
from qwharf.errors import InvalidFile, UsageError
from qwharf.fidelity.report import Fidelity, OutputErrors, Side, Through, WeightErrors
from qwharf.fidelity.weights import Progress, check_shapes, compare_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Fidelity", "Subject", "WeightErrors", "compare_outputs", "compare_weights"]

CHUNK_TOKENS = 256
TOKENS = 2_048


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the two models, its headers read."""

    path: Path
    name: str
    stored: Stored

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Subject:
        """Read a checkpoint folder's or a GGUF file's headers.

        Raises:
            InvalidFile, UnsupportedArchitecture, FormatUnavailable: see ``read_stored``.
        """
        return cls(path, name or path.resolve().name, read_stored(path))

    def side(self) -> Side:
        """What is told of it."""
        from qwharf.formats.tensors import parameter_count
        from qwharf.memory import weight_bytes_of_file

        bits = 8 * weight_bytes_of_file(self.path) / parameter_count(self.stored.arch)
        return Side(
            path=self.path,
            name=self.name,
            format=self.stored.format,
            size_bytes=sum(f.stat().st_size for f in self.stored.files),
            bits_per_weight=round(bits, 4),
        )


def compare_outputs(
    a: Subject,
    b: Subject,
    text: str,
    label: str,
    *,
    tokens: int = TOKENS,
    engine: bool = False,
    progress: Progress | None = None,
) -> OutputErrors:
    """What both predict on ``text``.

    Args:
        a: the reference.
        b: what is measured.
        text: cut into tokens by A's tokenizer, which must be B's too.
        label: what to call the text.
        tokens: how many of its tokens are used, from the beginning.
        engine: through the embedded llama.cpp where a side is GGUF; otherwise by the forward pass.
        progress: ``(label, done, total)``.

    Raises:
        UsageError: the text is too short, or the tokenizers differ.
        InvalidFile, FormatUnavailable: a side cannot be read.
        EngineError: the engine failed.
    """
    from qwharf.fidelity.predictions import measure

    check_shapes(a.stored, b.stored)
    ids = _encode(a.path, b.path, text, label)[:tokens]
    chunks = [c for c in _cut(ids, CHUNK_TOKENS) if len(c) > 1]
    if not chunks:
        raise UsageError(label, found=f"{len(ids)} tokens", expected="a text of two at least")
    columns = min(a.stored.arch.vocab_size, b.stored.arch.vocab_size)
    with (
        _logits(a, chunks, engine, progress, "A") as (of_a, through_a),
        _logits(b, chunks, engine, progress, "B") as (of_b, through_b),
    ):
        found = measure(chunks, of_a, of_b, columns)
    return OutputErrors(
        text=label,
        tokens=sum(map(len, chunks)),
        predictions=len(found.divergences),
        chunk_tokens=CHUNK_TOKENS,
        through=(through_a, through_b),
        kl_mean=float(found.divergences.mean()),
        kl_median=found.quantile(0.5),
        kl_99=found.quantile(0.99),
        kl_max=float(found.divergences.max()),
        same_top_1=found.same_top_1,
        perplexity_a=found.perplexity_a,
        perplexity_b=found.perplexity_b,
    )


def _encode(a: Path, b: Path, text: str, label: str) -> list[int]:
    from qwharf.formats.tokenizer import load_tokenizer

    ids = load_tokenizer(a).encode(text)
    try:
        other = load_tokenizer(b).encode(text)
    except InvalidFile:  # B has none, or a damaged one: its weights can be measured with A's
        return ids
    if ids != other:
        at = next((i for i, (x, y) in enumerate(zip(ids, other, strict=False)) if x != y), 0)
        raise UsageError(
            str(b),
            found=f"a tokenizer that reads {label} differently, from its token {at:,} on",
            expected=f"that of {a.name}",
            hint="what they predict can only be compared token by token",
        )
    return ids


def _cut(ids: Sequence[int], length: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(ids), length):
        yield ids[first : first + length]


@contextmanager
def _logits(
    subject: Subject,
    chunks: Sequence[Sequence[int]],
    engine: bool,
    progress: Progress | None,
    side: str,
) -> Iterator[tuple[Iterable[NDArray[np.float32]], Through]]:
    def told(label: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"predictions of {side}", done, total)

    if not (engine and subject.stored.gguf is not None):
        from qwharf.forward import logits

        yield logits(subject.path, chunks, progress=told), "forward"
        return
    from qwharf.fidelity.through_engine import EngineLogits, check_size

    vocabulary = subject.stored.arch.vocab_size
    check_size(vocabulary, sum(map(len, chunks)))
    longest = max(map(len, chunks))
    with EngineLogits(subject.path, vocabulary=vocabulary, context_tokens=longest) as child:
        yield child.logits(chunks, told), "llama.cpp"
