"""How far a model is from another form of itself: by its weights, and by what it predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

__all__ = ["Fidelity", "WeightErrors", "compare_outputs", "compare_weights", "read_side", "side_of"]

CHUNK_TOKENS = 256
TOKENS = 2_048


def read_side(path: Path) -> Stored:
    """The headers of a checkpoint folder or a GGUF file; see :func:`read_stored`."""
    return read_stored(path)


def side_of(stored: Stored, path: Path, name: str) -> Side:
    """What is told of one of the two."""
    from qwharf.formats.tensors import parameter_count
    from qwharf.memory import weight_bytes_of_file

    bits = 8 * weight_bytes_of_file(path) / parameter_count(stored.arch)
    return Side(
        path=path,
        name=name,
        format=stored.format,
        size_bytes=sum(f.stat().st_size for f in stored.files),
        bits_per_weight=round(bits, 4),
    )


def compare_outputs(
    a: tuple[Path, Stored],
    b: tuple[Path, Stored],
    text: str,
    label: str,
    *,
    tokens: int = TOKENS,
    engine: bool = False,
    progress: Progress | None = None,
) -> OutputErrors:
    """What both predict on ``text``.

    Args:
        a: the reference, its path and what was read of it.
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

    check_shapes(a[1], b[1])
    ids = _encode(a[0], b[0], text, label)[:tokens]
    chunks = [c for c in _cut(ids, CHUNK_TOKENS) if len(c) > 1]
    if not chunks:
        raise UsageError(label, found=f"{len(ids)} tokens", expected="a text of two at least")
    columns = min(a[1].arch.vocab_size, b[1].arch.vocab_size)
    with (
        _logits(*a, chunks, engine, progress, "A") as (of_a, through_a),
        _logits(*b, chunks, engine, progress, "B") as (of_b, through_b),
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
    path: Path,
    stored: Stored,
    chunks: Sequence[Sequence[int]],
    engine: bool,
    progress: Progress | None,
    side: str,
) -> Iterator[tuple[Iterable[NDArray[np.float32]], Through]]:
    def told(label: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"predictions of {side}", done, total)

    if not (engine and stored.gguf is not None):
        from qwharf.forward import logits

        yield logits(path, chunks, progress=told), "forward"
        return
    from qwharf.fidelity.through_engine import EngineLogits, check_size

    check_size(stored.arch.vocab_size, sum(map(len, chunks)))
    with EngineLogits(
        path, vocabulary=stored.arch.vocab_size, context_tokens=max(map(len, chunks))
    ) as child:
        yield child.logits(chunks), "llama.cpp"
