"""``fidelity``: how far a model is from another form of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from qwharf.cli.options import complete_models, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import gb, harmless
from qwharf.cli.weights_at import weights_at
from qwharf.fidelity.report import Fidelity, GroupError, OutputErrors, WeightErrors

BARS = "▁▂▃▄▅▆▇█"
MAX_TEXT_BYTES = 64 << 20


@click.command()
@click.argument("a", shell_complete=complete_models)
@click.argument("b", shell_complete=complete_models)
@click.option(
    "--text",
    "text_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Predict this text instead of qwharf's own.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=2),
    default=2_048,
    show_default=True,
    metavar="N",
    help="Use so many tokens of the text.",
)
@click.option("--weights-only", is_flag=True, help="Compare weights; predict nothing.")
@click.option(
    "--engine",
    is_flag=True,
    help="Predict with the embedded llama.cpp where a side is GGUF; for small vocabularies.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the error per layer: .svg, .html or .png.",
)
@with_output
def fidelity(
    a: str,
    b: str,
    text_file: Path | None,
    tokens: int,
    weights_only: bool,
    engine: bool,
    plot: Path | None,
    out: Output,
) -> None:
    """Show how far B is from A: its weights, and what it predicts.

    A and B are two forms of one model (or a model and its fine-tune): .gguf files, folders in any
    format, artifacts of the store or names, as for `qwharf inspect`. A is the reference.

    \b
    Examples:
      qwharf fidelity ./Qwen3-0.6B ./Qwen3-0.6B-Q4_K_M.gguf
      qwharf fidelity pocket pocket:q4_k_m --plot error.svg
      qwharf fidelity ./bf16 ./awq --weights-only --json
    """
    from qwharf import fidelity as measuring
    from qwharf.fidelity import picture

    if plot is not None:
        picture.check_ending(plot)
    first, second = weights_at(a), weights_at(b)
    text, label = _text(text_file)
    one = measuring.Subject.read(first.path, first.name)
    other = measuring.Subject.read(second.path, second.name)
    with out.progress() as bar:
        weights = measuring.compare_weights(one.stored, other.stored, progress=bar)
        outputs = None
        if not weights_only:
            outputs = measuring.compare_outputs(
                one, other, text, label, tokens=tokens, engine=engine, progress=bar
            )
    found = Fidelity(a=one.side(), b=other.side(), weights=weights, outputs=outputs)
    if plot is not None:
        picture.save(found, plot)
        out.step("plot", str(plot))
    out.data(found, "\n\n".join(_parts(found, out)))


def _text(file: Path | None) -> tuple[str, str]:
    if file is None:
        from qwharf.texts import text

        return text("evaluation"), "qwharf's own text"
    from qwharf.errors import InvalidFile
    from qwharf.formats.opening import read_bounded

    try:
        return read_bounded(file, MAX_TEXT_BYTES).decode("utf-8"), file.name
    except UnicodeDecodeError as e:
        raise InvalidFile(str(file), found=str(e), expected="a text in UTF-8") from e


# ------------------------------------------------------------------------------------------ human


def _parts(found: Fidelity, out: Output) -> Iterator[str]:
    rows = [
        [letter, harmless(s.name), s.format, gb(s.size_bytes), f"{s.bits_per_weight:.2f}"]
        for letter, s in (("A", found.a), ("B", found.b))
    ]
    yield out.table(
        ["", "name", "format", "size", "bits per weight"], rows, right={"size", "bits per weight"}
    )
    if found.weights is not None:
        yield _weights(found.weights, out)
        yield _layers(found.weights, out)
    if found.outputs is not None:
        yield _outputs(found.outputs, out)


def _weights(errors: WeightErrors, out: Output) -> str:
    rows = [_row(g) for g in (*errors.by_kind, errors.total)]
    table = out.table(
        ["matrices", "number", "relative error", "largest error"],
        rows,
        right={"number", "relative error", "largest error"},
    )
    return "\n".join([table, *(f"  - {note}" for note in errors.notes)])


def _row(group: GroupError) -> list[str]:
    return [group.name, f"{group.matrices:,}", percent(group.relative), f"{group.max_abs:.3g}"]


def _layers(errors: WeightErrors, out: Output) -> str:
    """One bar per layer, from nothing to the worst."""
    worst = max(errors.by_layer, key=lambda g: g.relative)
    best = min(errors.by_layer, key=lambda g: g.relative)
    top = len(BARS) - 1
    bars = "".join(
        BARS[round(top * g.relative / worst.relative) if worst.relative else 0]
        for g in errors.by_layer
    )
    return (
        f"{out.style('layers', 'bold')}  {bars}  from {percent(best.relative)} (layer {best.name}) "
        f"to {percent(worst.relative)} (layer {worst.name})"
    )


def _outputs(found: OutputErrors, out: Output) -> str:
    change = 100 * (found.perplexity_b / found.perplexity_a - 1)
    facts = [
        (
            "KL divergence",
            f"mean {found.kl_mean:.5f}, median {found.kl_median:.5f}, "
            f"99 % {found.kl_99:.4f}, max {found.kl_max:.4f} nats",
        ),
        ("same top token", f"{100 * found.same_top_1:.2f} %"),
        (
            "perplexity",
            f"{found.perplexity_a:,.4f} and {found.perplexity_b:,.4f} ({change:+.2f} %)",
        ),
    ]
    title = out.style(f"predictions of {harmless(found.text)}", "bold")
    through = " and ".join(dict.fromkeys(_through(t) for t in found.through))
    how = (
        f"{found.predictions:,} predictions in pieces of {found.chunk_tokens} tokens, by {through}"
    )
    return "\n".join([title, *(f"  {k:<16}{v}" for k, v in facts), out.style(f"  {how}", "dim")])


def _through(how: str) -> str:
    return "qwharf's own forward pass (float32)" if how == "forward" else "llama.cpp"


def percent(share: float) -> str:
    """``6.18 %``; small ones keep two digits."""
    from qwharf.fidelity.picture import percent as shown

    return shown(share)
