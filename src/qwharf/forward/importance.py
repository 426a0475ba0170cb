"""The importance matrix of a model and a text: what ``llama-imatrix`` would collect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwharf.errors import UsageError
from qwharf.forward import Progress, architecture_of, walk
from qwharf.quantize.imatrix import Entry, Importance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

ROWS = 512
"""Tokens whose squares are held at a time."""


def chunked(tokens: Sequence[int], length: int) -> list[Sequence[int]]:
    """Pieces of ``length`` tokens; a shorter rest is left out.

    Raises:
        UsageError: there is not even one.
    """
    pieces = [tokens[i : i + length] for i in range(0, len(tokens) - length + 1, length)]
    if not pieces:
        raise UsageError(
            "text",
            found=f"{len(tokens):,} tokens",
            expected=f"at least {length:,}, one chunk",
            hint="give a longer text, or a smaller --chunk",
        )
    return pieces


def importance_of(
    path: Path,
    chunks: Sequence[Sequence[int]],
    *,
    dataset: str = "",
    progress: Progress | None = None,
) -> Importance:
    """Let a model read ``chunks`` and sum up the squares of what enters each matrix.

    The output matrix and the embedding are left out, as they are by default there.

    Args:
        path: a checkpoint folder or a ``.gguf`` file.
        chunks: lists of token ids, of one length; each begins at position 0.
        dataset: what the text is called.
        progress: ``(label, done_bytes, total_bytes)`` of weights read.

    Raises:
        As :func:`qwharf.forward.logits`.
    """
    collector = _Collector(architecture_of(path).num_experts)
    walk(path, chunks, collector, progress=progress)
    return Importance(
        entries=collector.entries(),
        chunks=len(chunks),
        chunk_tokens=len(chunks[0]),
        datasets=(dataset,) if dataset else (),
    )


class _Collector:
    """Sums per tensor and expert. Those of one call are exact; between calls they are float32."""

    def __init__(self, experts: int) -> None:
        self.experts = experts
        self.sums: dict[str, F32] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}

    def __call__(self, names: Sequence[str], inputs: F32, expert: int | None) -> None:
        squares = np.zeros(inputs.shape[1], np.float64)
        for first in range(0, len(inputs), ROWS):
            squares += np.square(inputs[first : first + ROWS], dtype=np.float64).sum(axis=0)
        stack = 1 if expert is None else self.experts
        for name in names:
            if name not in self.sums:
                self.sums[name] = np.zeros((stack, inputs.shape[1]), np.float32)
                self.counts[name] = np.zeros(stack, np.int64)
            self.sums[name][expert or 0] += squares.astype(np.float32)
            self.counts[name][expert or 0] += len(inputs)

    def entries(self) -> dict[str, Entry]:
        return {name: Entry(self.sums[name], self.counts[name]) for name in sorted(self.sums)}
