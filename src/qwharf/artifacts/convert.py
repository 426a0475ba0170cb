"""Conversion: one pass from the source to the target, whatever the formats.

A checkpoint in Hugging Face layout, or a GGUF file, becomes a GGUF file, or a folder of safetensors
in one of the formats of :mod:`qwharf.artifacts.targets`. GGUF tensors are those that llama.cpp's
converter followed by ``llama-quantize`` would make, byte for byte. Memory is bounded, and a
conversion may be killed and resumed at any moment: :mod:`qwharf.artifacts.streaming`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qwharf import __version__
from qwharf.artifacts import streaming
from qwharf.artifacts.finding import find_layers
from qwharf.artifacts.folder_plan import folder_output
from qwharf.artifacts.gguf_plan import gguf_output
from qwharf.artifacts.stored import read_stored
from qwharf.artifacts.streaming import Step
from qwharf.artifacts.targets import is_folder_target
from qwharf.errors import FormatUnavailable
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.formats.names import FORMATS
from qwharf.formats.weights import mlx
from qwharf.quantize.imatrix import Importance
from qwharf.quantize.mixing import MIXES
from qwharf.types import Format

TARGETS = frozenset(name for name, mix in MIXES.items() if not mix.needs_importance)
"""What can be made without an importance matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What a conversion made."""

    path: Path
    format: Format
    size_bytes: int
    tensors: int
    resumed_tensors: int
    """How many of them an interrupted run had finished."""
    sha256: Mapping[str, str]
    """Of each weight file, by its name, if that was asked for."""
    seconds: float


def can_convert(source: Format, target: Format, *, weighted: bool = False) -> bool:
    """Whether :func:`convert` makes ``target`` out of ``source``.

    A quantised source is dequantised first; what it lost is not found again. ``weighted``: with an
    importance matrix.
    """
    return source != target and _makeable(target, weighted)


def _makeable(target: Format, weighted: bool) -> bool:
    if target.container == "gguf":
        return target.quantization in (MIXES if weighted else TARGETS)
    return not weighted and is_folder_target(target)


def unavailable(
    subject: str, source: Format | None, target: Format, *, weighted: bool = False
) -> FormatUnavailable:
    """The error for a conversion that :func:`can_convert` denies: says what is possible instead."""
    found, hint = f"{target}, which cannot be made", "gguf:q4_k_m is the usual choice"
    if source == target:
        found, hint = f"{source} weights already", "there is nothing to convert"
    elif weighted:
        found = f"an importance matrix, of which {target} takes no notice"
        hint = "leave it out, or name a quantisation of GGUF such as gguf:iq4_xs"
    elif target.container == "gguf" and target.quantization in MIXES:
        found = f"no importance matrix, without which {target} cannot be made"
        hint = "make one with `qwharf imatrix` and give it with --imatrix; gguf:q2_k needs none"
    elif target.quantization == "compressed-tensors":
        found = "a name for a family of formats"
        hint = "name one of them: w4a16, w8a8 or fp8-channel"
    return FormatUnavailable(
        subject, found=found, expected=f"a format that can be made: {makeable()}", hint=hint
    )


def makeable() -> str:
    """What can be made of any source, for a person."""
    mixes = ", ".join(q for q in MIXES if q in TARGETS)
    folders = [f.quantization for f in FORMATS if is_folder_target(f) and f.container != "mlx"]
    bits = "/".join(map(str, mlx.BITS))
    return f"gguf: ({mixes}), {', '.join(folders)}, mlx:bf16 or mlx: with {bits} bit"


def convert(
    source: Path,
    target_format: Format,
    out_path: Path,
    *,
    progress: Step | None = None,
    memory_bytes: int | None = None,
    threads: int | None = None,
    importance: Importance | None = None,
    calibrated: Path | None = None,
    resume: bool = True,
    digest: bool = False,
    name: str | None = None,
) -> ConvertResult:
    """Convert ``source`` to a GGUF file or a folder at ``out_path``.

    Args:
        source: a checkpoint folder (safetensors in any of the formats that
            :mod:`qwharf.artifacts.stored` reads, sharded or not), or a ``.gguf`` file (of a split
            one, the first part).
        target_format: ``gguf:`` with one of :data:`TARGETS`, or a format of a folder.
        out_path: appears when it is complete; until then what has ``.partial`` in its name lies
            beside it. An existing file is replaced by a file, a folder only if it is empty.
        progress: ``(done_bytes, total_bytes, tensor)``.
        memory_bytes: what may be held at once; default: 1 GB.
        threads: default: every core this process may use. The bytes do not depend on it.
        importance: how much an error in each column weighs; for quantisations of GGUF.
        calibrated: a folder with the source's layers as a calibration has rounded them
            (:mod:`qwharf.calibration`); their numbers are kept, whatever the layout.
        resume: go on from an interrupted run with the same source and target.
        digest: compute the sha256 of the weight files, too.
        name: what the model is called, for ``general.name``; default: from the source.

    Raises:
        FormatUnavailable: there is no such conversion.
        InvalidFile, UnsupportedArchitecture: the source is damaged, incomplete, not a Qwen3, or
            holds weights that are not finite; names the file and the tensor.
        StorageError: no space (asked before the first byte), or no permission.
        Conflict: another process is writing ``out_path``, or a folder of that name has content.
    """
    started = time.perf_counter()
    if not _makeable(target_format, importance is not None):
        raise unavailable(str(source), None, target_format, weighted=importance is not None)
    stored = read_stored(source)
    if calibrated is not None:
        layers = read_checkpoint(calibrated)
        files = (*stored.files, *layers.weight_files)
        stored = replace(stored, matrices={**stored.matrices, **find_layers(layers)}, files=files)
    facts = [_versions(), *map(_identity, stored.files)]
    identity = "\n".join(facts if importance is None else [*facts, importance.digest()])
    if target_format.container == "gguf":
        mix = target_format.quantization
        plan = gguf_output(stored, mix, out_path, identity, name, importance)
    else:
        plan = folder_output(stored, target_format, out_path, identity)
    done = streaming.run(
        plan,
        threads=threads,
        memory_bytes=memory_bytes or streaming.MEMORY_BYTES,
        progress=progress,
        resume=resume,
        digest=digest,
    )
    return ConvertResult(
        path=out_path,
        format=target_format,
        size_bytes=plan.size_bytes,
        tensors=len(plan.units),
        resumed_tensors=done.resumed,
        sha256=done.sha256,
        seconds=time.perf_counter() - started,
    )


def _identity(path: Path) -> str:
    """Changes whenever the file does, for all practical purposes."""
    found = path.stat()
    return f"{path.absolute()} {found.st_size} {found.st_mtime_ns}"


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        engine = version("xllamacpp")
    except PackageNotFoundError:
        engine = "none"
    return f"qwharf {__version__} xllamacpp {engine}"
