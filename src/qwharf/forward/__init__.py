"""A small forward pass of Qwen3 in numpy: for measuring models, not for talking to them.

It reads a checkpoint folder or a GGUF file, in any format that can be converted, computes in
float32 and holds little: the activations of the chunks at hand (:data:`ACTIVATION_BYTES`) and the
largest of half a layer's weights, one expert's, and the output matrix, as float32. Each weight is
read once for as many chunks as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwharf.errors import UsageError
from qwharf.forward.layers import Tap, run
from qwharf.forward.weights import Progress, Weights
from qwharf.types import Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Progress", "Tap", "architecture_of", "logits", "walk"]

ACTIVATION_BYTES = 1 << 30
COPIES = 4
"""Arrays as large as all hidden states that a pass holds at most: those, two inputs, one sum."""


def logits(
    path: Path, chunks: Sequence[Sequence[int]], *, progress: Progress | None = None
) -> Iterator[NDArray[np.float32]]:
    """The logits of every position of each chunk, [tokens, vocabulary], chunk after chunk.

    Row i tells of the token after ``chunk[i]``. Nothing is computed before the first is asked for;
    one chunk's logits are held at a time.

    Args:
        path: a checkpoint folder or a ``.gguf`` file.
        chunks: lists of token ids; each begins at position 0.
        progress: ``(label, done_bytes, total_bytes)`` of weights read.

    Raises:
        UsageError: an empty chunk, or an id that the model has not.
        InvalidFile, UnsupportedArchitecture, FormatUnavailable: the model cannot be read, or gives
            values that are not finite.
    """
    for weights, hidden in _passes(path, chunks, None, progress):
        head = weights.matrix(weights.head)
        while hidden:
            yield hidden.pop(0) @ head.T


def walk(
    path: Path, chunks: Sequence[Sequence[int]], tap: Tap, *, progress: Progress | None = None
) -> None:
    """Show ``tap`` what enters each matrix of each layer; see :func:`logits`."""
    for _ in _passes(path, chunks, tap, progress):
        pass


def architecture_of(path: Path) -> Architecture:
    """The numbers of the model at ``path``; headers are read, nothing else.

    Raises:
        InvalidFile, UnsupportedArchitecture, FormatUnavailable: the model cannot be read.
    """
    with Weights(path) as weights:
        return weights.arch


def _passes(
    path: Path,
    chunks: Sequence[Sequence[int]],
    tap: Tap | None,
    progress: Progress | None,
) -> Iterator[tuple[Weights, list[NDArray[np.float32]]]]:
    with Weights(path, progress) as weights:
        _check(weights.arch, chunks)
        groups = list(_groups(weights.arch, chunks))
        weights.expect(passes=len(groups), head=tap is None)
        for group in groups:
            yield weights, run(weights, group, tap)


def _check(arch: Architecture, chunks: Sequence[Sequence[int]]) -> None:
    for number, chunk in enumerate(chunks):
        if not chunk:
            raise UsageError(f"chunk {number}", found="no tokens", expected="at least one")
        worst = max(max(chunk), -min(chunk) + arch.vocab_size - 1)
        if worst >= arch.vocab_size:
            raise UsageError(
                f"chunk {number}",
                found=f"a token id outside 0 to {arch.vocab_size - 1}",
                expected="ids of this model's vocabulary",
                hint="use the model's own tokenizer",
            )


def _groups(
    arch: Architecture, chunks: Sequence[Sequence[int]]
) -> Iterator[Sequence[Sequence[int]]]:
    """As many chunks at a time as their activations allow."""
    room = ACTIVATION_BYTES // (4 * COPIES * arch.hidden_size)
    group: list[Sequence[int]] = []
    tokens = 0
    for chunk in chunks:
        if group and tokens + len(chunk) > room:
            yield group
            group, tokens = [], 0
        group.append(chunk)
        tokens += len(chunk)
    if group:
        yield group
