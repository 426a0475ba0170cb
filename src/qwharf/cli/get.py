"""``pull`` and ``convert``: weights into the store, and from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwharf import catalog, pipeline, settings
from qwharf.artifacts.store import Store
from qwharf.cli.observer import TerminalObserver
from qwharf.cli.options import (
    complete_formats,
    complete_models,
    format_option,
    model_argument,
    size,
    with_output,
)
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb
from qwharf.errors import FormatUnavailable
from qwharf.formats.names import parse_format
from qwharf.types import Artifact, Format


@click.command()
@model_argument
@format_option
@click.option(
    "--from",
    "hub",
    type=click.Choice(["hf", "modelscope"]),
    default="hf",
    show_default=True,
    help="Hub to fetch from.",
)
@click.option("--revision", help="Commit, branch or tag; pinned at the first download.")
@click.option("--upgrade", is_flag=True, help="Move the pin to the newest revision.")
@with_output
def pull(
    model: str, format_text: str | None, hub: Any, revision: str | None, upgrade: bool, out: Output
) -> None:
    """Fetch the official weights of MODEL into the store; resumes where it stopped.

    \b
    Examples:
      qwharf pull qwen3:8b --format gguf:q4_k_m
      qwharf pull Qwen/Qwen3-8B-AWQ --from modelscope

    HF_TOKEN, HF_ENDPOINT and MODELSCOPE_ENDPOINT are respected.
    """
    from qwharf.artifacts import pulling

    config = settings.load()
    resolved = catalog.resolve(model)
    wanted = parse_format(format_text) if format_text else resolved.format
    wanted = wanted or Format("safetensors", "bf16")
    found = [r for r in resolved.model.repositories if r.format == wanted and hub in r.hubs]
    if not found:
        have = ", ".join(sorted({str(r.format) for r in resolved.model.repositories}))
        raise FormatUnavailable(
            resolved.model.name,
            found=have or "no repositories",
            expected=f"{wanted} on {hub}",
            hint=f"pull bf16 and convert it: `qwharf convert {resolved.model.name} --to {wanted}`",
        )
    with out.progress() as bar:
        artifact = pulling.pull(
            found[0],
            model=resolved.model.name,
            hub=hub,
            store=Store(config.store_dir),
            progress=bar,
            revision=revision,
            upgrade=upgrade,
        )
    out.data(artifact, describe(artifact))


@click.command()
@click.argument("source", metavar="SOURCE", shell_complete=complete_models)
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FORMAT",
    shell_complete=complete_formats,
    help="What to make: q4_k_m, gguf:iq4_xs, fp8, awq, gptq, w4a16, w8a8, mlx:4, bf16 …",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Also place the result here (hard link, or copy): a file for GGUF, else a folder.",
)
@click.option(
    "--memory",
    "memory_bytes",
    callback=size,
    metavar="SIZE",
    help="What the conversion may use, whatever the size of the model: 1GB unless you say so; "
    "of --calibrate, three quarters of what is free.",
)
@click.option(
    "--imatrix",
    "imatrix_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Importance matrix, for GGUF: made by `qwharf imatrix` or llama-imatrix.",
)
@click.option(
    "--calibrate",
    "text_source",
    metavar="TEXT",
    help="Round with care to what a text needs, for awq, gptq, w4a16 and w8a8: a text or .jsonl "
    "file, or `default`. Needs `qwharf engine install llm-compressor`.",
)
@with_output
def convert(
    source: str,
    target: str,
    output: Path | None,
    memory_bytes: int | None,
    imatrix_file: Path | None,
    text_source: str | None,
    out: Output,
) -> None:
    """Convert SOURCE (a model's name, a checkpoint folder or a .gguf file) to another format.

    The result is kept in the store and made only once; an interrupted conversion goes on where it
    stopped. What can be made of what: docs/formats.md.

    \b
    Examples:
      qwharf convert ./my-finetune --to q4_k_m
      qwharf convert qwen3:0.6b --to awq -o ./Qwen3-0.6B-AWQ
      qwharf convert ./model-q8_0.gguf --to mlx:4 --memory 500MB
      qwharf convert ./my-finetune --to iq2_m --imatrix my-finetune.imatrix.gguf
      qwharf convert ./my-finetune --to awq --calibrate default
    """
    from qwharf.calibration import read_text
    from qwharf.quantize.imatrix import read

    config = settings.load()
    text = read_text(text_source) if text_source is not None else None
    with out.progress() as bar:
        artifact = pipeline.obtain(
            catalog.resolve(source).model,
            parse_format(target),
            config,
            TerminalObserver(out, bar),
            memory_bytes=memory_bytes,
            importance=read(imatrix_file) if imatrix_file is not None else None,
            text=text,
        )
    if output is not None:
        from qwharf.artifacts.placing import place

        how = place(artifact, output)
        out.step("place", f"{output} ({how})")
    out.data(artifact, describe(artifact))


def describe(artifact: Artifact) -> str:
    """An artifact for a person, in two lines."""
    return (
        f"{artifact.model} {artifact.format}: {gb(artifact.size_bytes)} in "
        f"{count(len(artifact.files), 'file')}\n{artifact.path}"
    )
