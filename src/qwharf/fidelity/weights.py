"""The error of each matrix, read a run of rows at a time from whatever both are stored as."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from qwharf.artifacts.matrices import Matrix
from qwharf.artifacts.positioned import Files
from qwharf.artifacts.stored import Stored
from qwharf.errors import InvalidFile, UsageError
from qwharf.fidelity.report import GroupError, MatrixError, WeightErrors
from qwharf.inspection.kinds import order_of, place_of
from qwharf.types import Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]

RUN_ELEMENTS = 1 << 21
"""Elements of a matrix that are held at a time, by each thread and of each side."""
THREADS = 8
FREE = frozenset(
    {
        "vocab_size", "tie_word_embeddings", "max_position_embeddings", "bos_token_id",
        "eos_token_id", "yarn_factor", "yarn_original_context_tokens", "rope_theta",
        "rms_norm_eps", "intermediate_size",
    }
)  # fmt: skip
"""Numbers in which two models may differ and still have matrices of the same shapes."""


@dataclass(frozen=True, slots=True)
class _Sums:
    """What errors of several matrices are made of."""

    elements: int
    squares: float
    """Of A's elements."""
    differences: float
    """Squares of the differences."""
    largest: float

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.elements + other.elements,
            self.squares + other.squares,
            self.differences + other.differences,
            max(self.largest, other.largest),
        )

    @property
    def relative(self) -> float:
        """Norm over norm; where A is all zeros, the norm of the difference itself."""
        return math.sqrt(self.differences / (self.squares or 1.0))


ZERO = _Sums(0, 0.0, 0.0, 0.0)


def compare_weights(
    a: Stored, b: Stored, *, progress: Progress | None = None, threads: int | None = None
) -> WeightErrors:
    """Every matrix of B against A's.

    Args:
        a: the reference.
        b: what is measured.
        progress: ``(label, elements done, of all)``.
        threads: at most so many matrices at once; by default one per core, at most 8.

    Raises:
        UsageError: the two have different shapes.
        InvalidFile: a file cannot be read, or a matrix holds NaN or infinite values; names it.
    """
    check_shapes(a, b)
    pairs = {name: (_partner(a, name), matrix) for name, matrix in b.matrices.items()}
    total = sum(math.prod(m.shape) for m in b.matrices.values())
    report = _Report(progress, total)
    own = threading.local()
    opened: list[Files] = []

    def measure(pair: tuple[Matrix, Matrix]) -> _Sums:
        if not hasattr(own, "files"):
            own.files = Files()
            opened.append(own.files)
        sums = _compare(own.files, *pair)
        report.add(sums.elements)
        return sums

    with ThreadPoolExecutor(threads or min(THREADS, os.cpu_count() or 1)) as pool:
        try:
            sums = dict(zip(pairs, pool.map(measure, pairs.values()), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
            for files in opened:
                files.close()
    return _errors(sums, tuple(_notes(a, b)))


def check_shapes(a: Stored, b: Stored) -> None:
    """Whether the two are the same model in two forms, as far as shapes tell.

    Raises:
        UsageError: they are not.
    """
    differing = [
        f"{f.name} {getattr(a.arch, f.name)} and {getattr(b.arch, f.name)}"
        for f in fields(Architecture)
        if f.name not in FREE and getattr(a.arch, f.name) != getattr(b.arch, f.name)
    ]
    if differing:
        raise UsageError(
            str(b.files[0]),
            found=f"another shape than {a.files[0].name}: {', '.join(differing[:3])}",
            expected="the same model in another format, or a fine-tune of it",
        )


def _partner(a: Stored, name: str) -> Matrix:
    """A's matrix of that name; an output matrix that A has not is its embedding."""
    return a.matrices.get(name) or a.matrices["model.embed_tokens.weight"]


class _Report:
    """Adds up what threads have done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress
        self.total = total
        self.done = 0
        self.lock = threading.Lock()

    def add(self, elements: int) -> None:
        with self.lock:
            self.done += elements
            if self.progress is not None:
                self.progress("weights", min(self.done, self.total), self.total)


def _compare(files: Files, a: Matrix, b: Matrix) -> _Sums:
    rows, columns = min(a.shape[0], b.shape[0]), b.shape[1]
    step = math.lcm(a.step, b.step)
    run = max(step, RUN_ELEMENTS // columns // step * step)
    total = ZERO
    for first in range(0, rows, run):
        count = min(run, rows - first)
        total += _sums(_read(files, a, first, count), _read(files, b, first, count))
    return total


def _read(files: Files, matrix: Matrix, first: int, count: int) -> NDArray[np.float32]:
    """Rows of a matrix, whose runs end where it ends or at one of its steps."""
    end = min(matrix.shape[0], -(-(first + count) // matrix.step) * matrix.step)
    try:
        values = matrix.read(files, first, end - first)[:count]
    except ValueError as e:
        raise _bad(matrix, str(e), "numbers that belong together") from e
    if not np.isfinite(values).all():
        raise _bad(matrix, "NaN or infinite values", "finite weights")
    return values


def _bad(matrix: Matrix, found: str, expected: str) -> InvalidFile:
    region = matrix.region
    return InvalidFile(
        str(region.path),
        found=f"{region.name}: {found}",
        expected=expected,
        hint="get or make the file again",
        tensor=region.name,
    )


def _sums(a: NDArray[np.float32], b: NDArray[np.float32]) -> _Sums:
    difference = b - a
    return _Sums(
        a.size,
        _square(a),
        _square(difference),
        float(np.abs(difference, out=difference).max(initial=0.0)),
    )


def _square(values: NDArray[np.float32]) -> float:
    """The sum of squares: each row in float32, all rows in float64."""
    return float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64))


# ----------------------------------------------------------------------------------------- report


def _errors(sums: Mapping[str, _Sums], notes: tuple[str, ...]) -> WeightErrors:
    places = {name: place_of(name) for name in sums}
    kinds = sorted({p.kind for p in places.values()}, key=order_of)
    layers = sorted({p.layer for p in places.values() if p.layer is not None})
    return WeightErrors(
        total=_group("all", sums.values()),
        by_kind=tuple(
            _group(kind, (s for n, s in sums.items() if places[n].kind == kind)) for kind in kinds
        ),
        by_layer=tuple(
            _group(str(layer), (s for n, s in sums.items() if places[n].layer == layer))
            for layer in layers
        ),
        matrices=tuple(
            MatrixError(
                name=name,
                kind=places[name].kind,
                layer=places[name].layer,
                elements=s.elements,
                relative=s.relative,
                max_abs=s.largest,
            )
            for name, s in sums.items()
        ),
        notes=notes,
    )


def _group(name: str, sums: Iterable[_Sums]) -> GroupError:
    members = list(sums)
    whole = sum(members, ZERO)
    return GroupError(
        name=name,
        matrices=len(members),
        elements=whole.elements,
        relative=whole.relative,
        max_abs=whole.largest,
    )


def _notes(a: Stored, b: Stored) -> Iterable[str]:
    rows = a.arch.vocab_size, b.arch.vocab_size
    if rows[0] != rows[1]:
        yield f"A's embedding has {rows[0]:,} rows, B's {rows[1]:,}: the first {min(rows):,} count"
    if "lm_head.weight" in b.matrices.keys() - a.matrices.keys():
        yield "B has an output matrix of its own: it is held against A's embedding, which A uses"
    if "lm_head.weight" in a.matrices.keys() - b.matrices.keys():
        yield "B uses its embedding as the output matrix; A's own is not compared"
