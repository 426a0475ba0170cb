"""``imatrix``: how much each column of each weight matrix matters, for quantising with care."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwharf.cli.options import complete_models, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb
from qwharf.cli.weights_at import Weights, weights_at
from qwharf.errors import InvalidFile

if TYPE_CHECKING:
    from qwharf.quantize.imatrix import Importance

MAX_TEXT_BYTES = 64 << 20
DEFAULT_TEXT = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What ``--json`` prints."""

    path: Path
    form: str
    size_bytes: int
    model: str
    text: str
    chunks: int
    chunk_tokens: int
    tensors: int
    unseen_experts: Mapping[str, int] = field(default_factory=dict)
    """By tensor, how many experts no token came to; they are weighed evenly."""


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option(
    "--text",
    "text_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the model reads; default: a text that comes with qwharf.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: the model's name and imatrix.gguf (or .dat), in this folder.",
)
@click.option(
    "--chunk",
    "chunk_tokens",
    type=click.IntRange(16, 1 << 17),
    default=512,
    show_default=True,
    help="Tokens read at a time; a rest shorter than that is left out.",
)
@click.option(
    "--form",
    type=click.Choice(["gguf", "dat"]),
    default="gguf",
    show_default=True,
    help="File form: llama.cpp's present one, or its older one.",
)
@with_output
def imatrix(
    model: str,
    text_file: Path | None,
    output: Path | None,
    chunk_tokens: int,
    form: Any,
    out: Output,
) -> None:
    """Make an importance matrix: let MODEL read a text and note what enters each weight matrix.

    MODEL is a checkpoint folder, a .gguf file, an artifact of the store by its id, or a model's
    name. Use the result with `qwharf convert --imatrix`, or with llama-quantize.

    \b
    Examples:
      qwharf imatrix ./Qwen3-8B
      qwharf imatrix pocket --text my-domain.txt -o pocket.imatrix.gguf
    """
    from qwharf.formats.tokenizer import load_tokenizer
    from qwharf.forward.importance import chunked, importance_of
    from qwharf.quantize.imatrix import write

    where = weights_at(model)
    name, text = _text(text_file)
    tokens = load_tokenizer(where.path).encode(text)
    chunks = chunked(tokens, chunk_tokens)
    out.step("read", f"{count(len(chunks), 'chunk')} of {chunk_tokens} tokens from {name}")
    with out.progress() as bar:
        found = importance_of(where.path, chunks, dataset=name, progress=bar)
    target = output or Path(f"{_stem(where)}.imatrix.{form}")
    write(found, target, form)
    unseen = _unseen(found)
    if unseen:
        out.warn(
            f"some experts of {count(len(unseen), 'tensor')} saw no token and will be weighed "
            "evenly; a longer text reaches more"
        )
    made = Made(
        path=target,
        form=form,
        size_bytes=target.stat().st_size,
        model=model,
        text=name,
        chunks=found.chunks,
        chunk_tokens=found.chunk_tokens,
        tensors=len(found.entries),
        unseen_experts=unseen,
    )
    out.data(made, f"{target}: {count(made.tensors, 'tensor')}, {gb(made.size_bytes)}")


def _text(path: Path | None) -> tuple[str, str]:
    """The text's name and the text; a last line end is no part of it, as in ``llama-imatrix``."""
    from qwharf import texts
    from qwharf.formats.opening import read_bounded

    if path is None:
        return f"{DEFAULT_TEXT}.txt", texts.text(DEFAULT_TEXT).removesuffix("\n")
    try:
        text = read_bounded(path, MAX_TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InvalidFile(
            str(path), found=str(e)[:200], expected="a text in UTF-8", hint="save it as UTF-8"
        ) from e
    return path.name, text.removesuffix("\n")


def _stem(where: Weights) -> str:
    stem = where.name or where.path.absolute().name.removesuffix(".gguf")
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in stem)[:100] or "model"


def _unseen(found: Importance) -> dict[str, int]:
    counts = {n: int((e.counts == 0).sum()) for n, e in found.entries.items()}
    return {n: c for n, c in counts.items() if c}
