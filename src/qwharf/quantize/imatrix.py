"""Importance matrices: how much an error in each column of a weight matrix matters.

For every weight matrix, the squares of what is multiplied with it while a model reads a text are
summed up, column by column, with the number of tokens seen; of a mixture of experts, for each
expert apart. Quantisers weigh their errors by sum / count. llama.cpp has two forms of such files:
:mod:`~qwharf.quantize.imatrix_gguf`, which ``llama-imatrix`` writes today, and the older
:mod:`~qwharf.quantize.imatrix_dat`. Source: llama.cpp ``tools/imatrix/imatrix.cpp``,
``common/imatrix-loader.cpp``, ``tools/quantize/quantize.cpp``, ``src/llama-quant.cpp``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qwharf.errors import InvalidFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

Form = Literal["gguf", "dat"]

MAX_VALUES = 1 << 29
"""Numbers in a file; the 235B has 118 million."""
MAX_ENTRIES = 1 << 16
MAX_NAME_BYTES = 1024
MAX_RECORDED_BYTES = 127
"""Of a name that ``llama-quantize`` notes in the file that it makes."""

IMPORTANCE_TYPES = frozenset({"IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"})
"""Tensor types that are not made without importances."""
UNWEIGHTED = ("token_embd.weight", "output.weight")
"""Tensors that usually have none, and may be of any type without."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What entered one weight matrix, or each expert of a stack."""

    sums: F32
    """[experts, columns]: sums of squares."""
    counts: NDArray[np.int64]
    """[experts]: tokens that were summed over."""

    def means(self) -> F32:
        """[experts, columns]: importances; those of an expert that saw nothing are all 1."""
        seen = self.counts[:, None].astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(seen > 0, self.sums / seen, np.float32(1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Importance:
    """An importance matrix of a whole model."""

    entries: Mapping[str, Entry]
    """By the GGUF name of the tensor: ``blk.0.attn_q.weight``."""
    chunks: int = 0
    """How many pieces of text the model has read; 0: not known."""
    chunk_tokens: int = 512
    """Tokens of a piece."""
    datasets: tuple[str, ...] = ()
    """Names of the texts."""
    source: str = "importance matrix"
    """The file it was read from, for messages."""

    def digest(self) -> str:
        """Changes whenever what it makes of a model could."""
        made = hashlib.sha256()
        for name, entry in sorted(self.entries.items()):
            made.update(f"{name} {entry.sums.shape}\n".encode("utf-8", "surrogateescape"))
            made.update(np.ascontiguousarray(entry.means()).data)
        return made.hexdigest()

    def weights(self, name: str, experts: int, columns: int) -> F32 | None:
        """The importances of a tensor, [experts, columns]; ``None`` if there are none.

        Args:
            name: its GGUF name.
            experts: matrices in the stack; 1 for a plain matrix.
            columns: elements of a row.

        Raises:
            InvalidFile: they are of another shape (an embedding's are then left out, as
                ``llama-quantize`` does).
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        means = entry.means()
        if means.size == experts * columns:  # the older form knows nothing of experts
            return np.ascontiguousarray(means).reshape(experts, columns)
        if name == "token_embd.weight":
            return None
        raise InvalidFile(
            self.source,
            found=f"{means.size:,} importances for {name}",
            expected=f"{experts * columns:,}, as many as the model has columns there",
            hint="use an importance matrix that was made from this model",
            tensor=name,
        )


def needs_importance(name: str, type_name: str, quantization: str) -> bool:
    """Whether a tensor is not made without importances, since the result would be garbage.

    Args:
        name: the tensor's GGUF name.
        type_name: the type it is to have.
        quantization: of the whole file: ``iq2_m``.
    """
    if name in UNWEIGHTED:
        return False
    return type_name in IMPORTANCE_TYPES or (type_name == "Q2_K" and quantization == "q2_k_s")


def recorded(importance: Importance) -> dict[str, tuple[str, Any]]:
    """The GGUF keys by which a quantised file tells what it was made with.

    Of the file only its name: the folders of this machine are nobody's business.
    """
    file_name = importance.source.replace("\\", "/").rpartition("/")[2]
    keys: dict[str, tuple[str, Any]] = {"quantize.imatrix.file": ("str", _cut(file_name))}
    if importance.datasets:
        keys["quantize.imatrix.dataset"] = ("str", _cut(importance.datasets[0]))
    keys["quantize.imatrix.entries_count"] = ("u32", len(importance.entries))
    if importance.chunks > 0:
        keys["quantize.imatrix.chunks_count"] = ("u32", importance.chunks)
    return keys


def _cut(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")[:MAX_RECORDED_BYTES]
    return raw.decode("utf-8", "surrogateescape")


def checked(importance: Importance) -> Importance:
    """``importance``, if all of its numbers can be what they claim to be.

    Raises:
        InvalidFile: no entries, no counts, or sums that are negative or not finite.
    """
    if not importance.entries:
        raise refused(importance.source, "no entries", "sums for at least one tensor")
    for name, entry in importance.entries.items():
        low, high = entry.sums.min(initial=0), entry.sums.max(initial=0)
        if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
            bad = "a negative sum" if low < 0 else "a sum that is not finite"
            raise refused(importance.source, f"{bad} for {name!r:.200}", "sums of squares")
    return importance


def refused(source: str, found: str, expected: str) -> InvalidFile:
    """The error for a file that is no importance matrix."""
    return InvalidFile(
        source,
        found=found,
        expected=expected,
        hint="make one with `qwharf imatrix`, or get the file again",
    )


def read(path: Path) -> Importance:
    """Read a file of either form; its first bytes tell which.

    Raises:
        InvalidFile: not an importance matrix, or a damaged one.
        StorageError: it may not be read.
    """
    from qwharf.formats.opening import open_binary
    from qwharf.quantize.imatrix_dat import read_dat
    from qwharf.quantize.imatrix_gguf import read_gguf_form

    with open_binary(path, 0) as (file, _):
        magic = file.read(4)
    return read_gguf_form(path) if magic == b"GGUF" else read_dat(path)


def write(importance: Importance, path: Path, form: Form = "gguf") -> None:
    """Write a file, byte for byte as ``llama-imatrix`` would; it appears when it is whole.

    The older form stores sum / count x chunks, so it does not keep counts, nor experts that saw
    nothing.

    Raises:
        StorageError: no space, no permission.
    """
    from qwharf.quantize.imatrix_dat import write_dat
    from qwharf.quantize.imatrix_gguf import write_gguf_form

    (write_dat if form == "dat" else write_gguf_form)(importance, path)
