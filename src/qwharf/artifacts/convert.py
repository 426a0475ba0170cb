"""Conversion to GGUF: one pass from the source to the file, whatever the quantisation.

A checkpoint in Hugging Face layout, or a GGUF file of unquantised weights, becomes a GGUF file.
The tensors are those that llama.cpp's converter followed by ``llama-quantize`` would make, byte
for byte; :mod:`qwharf.artifacts.streaming` does the work in bounded memory and can be killed and
resumed at any moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from qwharf import __version__
from qwharf.artifacts import gguf_metadata, streaming
from qwharf.artifacts.sources import Source, read_source
from qwharf.artifacts.streaming import Job, Output, Step
from qwharf.errors import FormatUnavailable, InvalidFile
from qwharf.formats.gguf_writer import gguf_header
from qwharf.formats.tensors import gguf_tensors
from qwharf.quantize.mixing import MIXES, mix_of, tensor_type
from qwharf.types import Format

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
    """Whether :func:`convert` makes ``target`` out of ``source``."""
    return (
        source != target
        and source.container in ("safetensors", "gguf")
        and source.quantization in UNQUANTIZED
        and target.container == "gguf"
        and target.quantization in TARGETS
    )


def convert(
    source: Path,
    target_format: Format,
    out_path: Path,
    *,
    progress: Step | None = None,
    threads: int | None = None,
    resume: bool = True,
    name: str | None = None,
) -> ConvertResult:
    """Convert ``source`` to a GGUF file at ``out_path``.

    Args:
        source: a checkpoint folder (bf16, f16 or f32 safetensors, sharded or not), or a ``.gguf``
            file (of a split one, the first part) of bf16, f16 or f32 weights.
        target_format: ``gguf:`` with one of :data:`TARGETS`.
        out_path: appears when it is complete; until then ``.partial`` and ``.partial.journal``
            lie beside it. An existing file is replaced.
        progress: ``(done_bytes, total_bytes, tensor)``.
        threads: default: every core this process may use. The bytes do not depend on it.
        resume: go on from an interrupted run with the same source and target.
        name: what the model is called, for ``general.name``; default: from the source.

    Raises:
        FormatUnavailable: there is no such conversion.
        InvalidFile, UnsupportedArchitecture: the source is damaged, incomplete, not a Qwen3, or
            holds weights that are not finite; names the file and the tensor.
        StorageError: no space (asked before the first byte), or no permission.
        Conflict: another process is writing ``out_path``.
    """
    started = time.perf_counter()
    _check_target(source, target_format)
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


def _check_target(source: Path, target: Format) -> None:
    if target.container != "gguf" or target.quantization not in TARGETS:
        why = (
            "a format that needs an importance matrix"
            if target.container == "gguf" and target.quantization in MIXES
            else f"the target {target}"
        )
        raise FormatUnavailable(
            str(source),
            found=why,
            expected=f"gguf: with one of {', '.join(q for q in MIXES if q in TARGETS)}",
            hint="gguf:q4_k_m is the usual choice",
        )


def _output(source: Source, target: Format, out_path: Path) -> Output:
    quantization = target.quantization
    if quantization == "mxfp4_moe" and not source.arch.is_moe:
        raise FormatUnavailable(
            str(source.files[0]),
            found="a dense model",
            expected="a mixture of experts for gguf:mxfp4_moe",
            hint="gguf:q4_k_m is the usual choice",
        )
    specs = gguf_tensors(source.arch)
    types = {s.name: tensor_type(s, source.arch, quantization) for s in specs}
    own = gguf_metadata.file_metadata(mix_of(quantization).file_type)
    metadata = {key: own.get(key, value) for key, value in source.metadata.items()} | own
    try:
        header = gguf_header(metadata, [(s.name, s.shape, types[s.name]) for s in specs])
    except ValueError as e:  # a lone surrogate in a token or template, a number out of range
        raise InvalidFile(
            str(source.files[0].parent),
            found=f"a value that no GGUF file can hold: {str(e)[:200]}",
            expected="texts in UTF-8, and numbers in range",
            hint="fetch config.json, generation_config.json and the tokenizer's files again",
        ) from e
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
