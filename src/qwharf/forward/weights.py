"""A model's weights as float32, whatever they are stored as, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import Stored, read_stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

STRIP_ELEMENTS = 1 << 22
"""Elements dequantised at a time."""

Progress = Callable[[str, int, int], None]
"""``(label, done_bytes, total_bytes)`` of weights read."""


class Weights:
    """The matrices of one model; a context manager that closes its files."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        """Read the headers.

        Args:
            path: a checkpoint folder or a ``.gguf`` file, in any format that can be converted.
            progress: told after each matrix.

        Raises:
            InvalidFile, UnsupportedArchitecture, FormatUnavailable: see ``read_stored``.
        """
        self.stored: Stored = read_stored(path)
        self.arch = self.stored.arch
        self._files = Files()
        self._progress = progress
        self._done = self._total = 0

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def expect(self, passes: int, *, head: bool) -> None:
        """Told how often everything will be read, and whether the output matrix will be, too."""
        names = [n for n in self.stored.matrices if n != "lm_head.weight"]
        names += [self.head] if head else []
        self._total = passes * sum(map(self._size, names))

    def _size(self, name: str) -> int:
        region = self.stored.matrices[name].region
        return region.shape[0] * region.row_bytes

    @property
    def path(self) -> Path:
        """The first of the files, for messages."""
        return self.stored.files[0]

    @property
    def head(self) -> str:
        """The name of the matrix that makes logits: a tied model has none of its own."""
        tied = self.arch.tie_word_embeddings
        return "model.embed_tokens.weight" if tied else "lm_head.weight"

    def matrix(self, name: str) -> F32:
        """All of a matrix, [outputs, inputs].

        Raises:
            InvalidFile: the file cannot be read or ends early.
        """
        matrix = self.stored.matrices[name]
        out = np.empty(matrix.shape, np.float32)
        for first, last in self._strips(name):
            out[first:last] = matrix.read(self._files, first, last - first)
        self._report(name)
        return out

    def vector(self, name: str) -> F32:
        """The weights of a norm; see :meth:`matrix`."""
        return self.matrix(name).reshape(-1)

    def rows(self, name: str, wanted: NDArray[np.intp]) -> F32:
        """The rows of a matrix at ``wanted``, [len(wanted), inputs]; see :meth:`matrix`."""
        matrix = self.stored.matrices[name]
        out = np.empty((len(wanted), matrix.shape[1]), np.float32)
        for first, last in self._strips(name):
            here = np.flatnonzero((wanted >= first) & (wanted < last))
            if len(here):
                strip = matrix.read(self._files, first, last - first)
                out[here] = strip[wanted[here] - first]
        self._report(name)
        return out

    def _strips(self, name: str) -> list[tuple[int, int]]:
        matrix = self.stored.matrices[name]
        rows, columns = matrix.shape
        step = max(1, STRIP_ELEMENTS // columns // matrix.step) * matrix.step
        return [(first, min(first + step, rows)) for first in range(0, rows, step)]

    def _report(self, name: str) -> None:
        self._done += self._size(name)
        if self._progress is not None:
            self._progress("weights read", min(self._done, self._total), self._total)
