"""Conversion: one pass from the source to the target, whatever the formats.

A checkpoint in Hugging Face layout, or a GGUF file, becomes a GGUF file, or a folder of safetensors
in one of the formats of :mod:`qwharf.artifacts.targets`. GGUF tensors are those that llama.cpp's
converter followed by ``llama-quantize`` would make, byte for byte. Unquantised weights go to GGUF
by :mod:`qwharf.artifacts.streaming`, all else by :mod:`qwharf.artifacts.folder_streaming`; both
work in bounded memory and can be killed and resumed at any moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from qwharf import __version__
from qwharf.artifacts import folder_streaming, gguf_metadata, streaming
from qwharf.artifacts.convert_any import checked_header, folder_output, gguf_output
from qwharf.artifacts.folder_streaming import MEMORY_BYTES, FolderOutput
from qwharf.artifacts.sources import Source, read_source
from qwharf.artifacts.stored import Stored, read_stored
from qwharf.artifacts.streaming import Job, Output, Step
from qwharf.artifacts.targets import is_folder_target
from qwharf.errors import FormatUnavailable
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.formats.gguf import read_gguf, split_parts
from qwharf.formats.names import FORMATS
from qwharf.formats.tensors import gguf_tensors
from qwharf.formats.weights import mlx
from qwharf.quantize.ggml import FLOATS
from qwharf.quantize.mixing import MIXES, mix_of, tensor_type
from qwharf.types import Architecture, Format

UNQUANTIZED = ("bf16", "f16", "f32")
TARGETS = frozenset(name for name, mix in MIXES.items() if not mix.needs_importance)
"""What can be made: every mix that needs no importance matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What a conversion made."""

    path: Path
    format: Format
    size_bytes: int
    tensors: int
    resumed_tensors: int
    """How many of them an interrupted run had finished."""
    seconds: float


def can_convert(source: Format, target: Format) -> bool:
    """Whether :func:`convert` makes ``target`` out of ``source``.

    A quantised source is dequantised first; what it lost is not found again.
    """
    if target.container == "gguf":
        return source != target and target.quantization in TARGETS
    return source != target and is_folder_target(target)


def unavailable(subject: str, source: Format | None, target: Format) -> FormatUnavailable:
    """The error for a conversion that :func:`can_convert` denies: says what is possible instead."""
    found, hint = f"{target}, which cannot be made", "gguf:q4_k_m is the usual choice"
    if source == target:
        found, hint = f"{source} weights already", "there is nothing to convert"
    elif target.container == "gguf" and target.quantization in MIXES:
        found = f"no importance matrix, without which {target} cannot be made"
        hint = "gguf:q2_k and gguf:iq3_s are the smallest that need none"
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
    resume: bool = True,
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
        resume: go on from an interrupted run with the same source and target.
        name: what the model is called, for ``general.name``; default: from the source.

    Raises:
        FormatUnavailable: there is no such conversion.
        InvalidFile, UnsupportedArchitecture: the source is damaged, incomplete, not a Qwen3, or
            holds weights that are not finite; names the file and the tensor.
        StorageError: no space (asked before the first byte), or no permission.
        Conflict: another process is writing ``out_path``, or a folder of that name has content.
    """
    started = time.perf_counter()
    if not (is_folder_target(target_format) or target_format.quantization in TARGETS):
        raise unavailable(str(source), None, target_format)
    stored = _needs_decoding(source, target_format)
    if stored is not None:
        plan = _any_output(stored, target_format, out_path, name)
        resumed = folder_streaming.run(
            plan,
            threads=threads,
            memory_bytes=memory_bytes or MEMORY_BYTES,
            progress=progress,
            resume=resume,
        )
        return ConvertResult(
            path=out_path,
            format=target_format,
            size_bytes=plan.size_bytes,
            tensors=len(plan.units),
            resumed_tensors=resumed,
            seconds=time.perf_counter() - started,
        )
    read = read_source(source, name)
    output = _output(read, target_format, out_path)
    resumed = streaming.run(output, threads=threads, progress=progress, resume=resume)
    return ConvertResult(
        path=out_path,
        format=target_format,
        size_bytes=output.size_bytes,
        tensors=len(output.jobs),
        resumed_tensors=resumed,
        seconds=time.perf_counter() - started,
    )


def _needs_decoding(source: Path, target: Format) -> Stored | None:
    """The source, read for the folder engine; ``None`` where the GGUF engine does it alone."""
    if target.container != "gguf" or not _is_plain(source):
        return read_stored(source)
    return None


def _is_plain(source: Path) -> bool:
    """Whether the weights are plain floats under the names that every checkpoint has."""
    if source.is_dir():
        checkpoint = read_checkpoint(source)
        plain = checkpoint.format.quantization in UNQUANTIZED
        return plain and not any(".switch_mlp." in name for name in checkpoint.tensors)
    files = (read_gguf(part) for part in split_parts(source))
    return all(t.type.name in FLOATS for file in files for t in file.tensors.values())


def _any_output(stored: Stored, target: Format, out_path: Path, name: str | None) -> FolderOutput:
    identity = "\n".join([_versions(), *map(_identity, stored.files)])
    if target.container == "gguf":
        _check_experts(stored.arch, stored.files[0], target)
        return gguf_output(stored, target, out_path, identity, name)
    return folder_output(stored, target, out_path, identity)


def _output(source: Source, target: Format, out_path: Path) -> Output:
    quantization = target.quantization
    _check_experts(source.arch, source.files[0], target)
    specs = gguf_tensors(source.arch)
    types = {s.name: tensor_type(s, source.arch, quantization) for s in specs}
    own = gguf_metadata.file_metadata(mix_of(quantization).file_type)
    metadata = {key: own.get(key, value) for key, value in source.metadata.items()} | own
    header = checked_header(metadata, specs, types, source.files[0])
    jobs = [
        Job(
            name=s.name,
            columns=s.shape[-1],
            source=source.weights[s.name].type,
            target=types[s.name],
            pieces=source.weights[s.name].pieces,
            offset=header.offsets[s.name],
        )
        for s in specs
    ]
    return Output(
        path=out_path,
        header=header.data,
        jobs=tuple(jobs),
        size_bytes=header.size_bytes,
        identity="\n".join([_versions(), *map(_identity, source.files)]),
    )


def _check_experts(arch: Architecture, file: Path, target: Format) -> None:
    if target.quantization == "mxfp4_moe" and not arch.is_moe:
        raise FormatUnavailable(
            str(file),
            found="a dense model",
            expected="a mixture of experts for gguf:mxfp4_moe",
            hint="gguf:q4_k_m is the usual choice",
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
