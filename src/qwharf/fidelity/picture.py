"""A picture of the errors: a bar per layer, and below it a field per layer and kind of matrix.

It is laid out as plain shapes, which :func:`svg` writes as SVG, :func:`html` as a page around it,
and :mod:`qwharf.fidelity.raster` as PNG. Colours are chosen to be read on white and on black.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from qwharf.errors import StorageError, UsageError
from qwharf.fidelity.report import Fidelity, MatrixError, WeightErrors
from qwharf.inspection.kinds import order_of

INK = "#7a7a7a"
BLUE = "#3f7fd6"
FAINTEST = 0.06
CELL, GAP = 16, 2
LEFT, TOP, BARS = 118, 74, 96
ROW = CELL + GAP
SMALL, LARGE = 11, 15


@dataclass(frozen=True, slots=True)
class Rect:
    """A filled box, in pixels."""

    x: float
    y: float
    width: float
    height: float
    color: str
    opacity: float = 1.0
    says: str = ""
    """What is shown when the pointer rests on it."""


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; ``y`` is its base line."""

    x: float
    y: float
    text: str
    size: int = SMALL
    anchor: str = "start"
    """``start``, ``middle`` or ``end``."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes on a transparent ground."""

    width: int
    height: int
    title: str
    shapes: Sequence[Rect | Text]


def save(found: Fidelity, path: Path) -> None:
    """Write the picture, as the ending of ``path`` says.

    Raises:
        UsageError: the ending is none of svg, html, png, or no weights were compared.
        StorageError: it cannot be written.
    """
    if found.weights is None or not found.weights.by_layer:
        raise UsageError(str(path), found="no weights compared", expected="errors per layer")
    picture = draw(found, found.weights)
    kind = path.suffix.lower()
    if kind == ".svg":
        data = svg(picture).encode()
    elif kind in (".html", ".htm"):
        data = html(picture, found).encode()
    elif kind == ".png":
        from qwharf.fidelity.raster import png

        data = png(picture)
    else:
        raise UsageError(
            str(path), found=f"the ending {kind!r}", expected="one of .svg, .html, .png"
        )
    try:
        path.write_bytes(data)
    except OSError as e:
        raise StorageError(
            str(path), found=e.strerror or str(e), expected="a file that can be written"
        ) from e


def check_ending(path: Path) -> None:
    """Refuse a file name that :func:`save` would, before the work is done.

    Raises:
        UsageError: see there.
    """
    if path.suffix.lower() not in (".svg", ".html", ".htm", ".png"):
        raise UsageError(
            str(path), found=f"the ending {path.suffix!r}", expected="one of .svg, .html, .png"
        )


# ----------------------------------------------------------------------------------------- layout


def draw(found: Fidelity, weights: WeightErrors) -> Picture:
    """The shapes of the picture."""
    cells = _cells(weights.matrices)
    kinds = sorted({kind for kind, _ in cells}, key=order_of)
    layers = [int(group.name) for group in weights.by_layer]
    column = {layer: n for n, layer in enumerate(layers)}
    right = LEFT + len(layers) * ROW
    floor = TOP + BARS
    title = f"{found.b.name} {found.b.format}: relative error of the weights against {found.a.name}"
    shapes: list[Rect | Text] = [
        Text(LEFT, 24, f"{found.b.format}", LARGE),
        Text(LEFT, 44, f"against {found.a.format}: {percent(weights.total.relative)} in all"),
        Text(LEFT - 8, floor - 2, "whole layer", anchor="end"),
    ]
    highest = max((g.relative for g in weights.by_layer), default=0.0)
    shapes += _scale(highest, right)
    for group in weights.by_layer:
        height = BARS * group.relative / highest if highest else 0.0
        shapes.append(
            Rect(
                LEFT + column[int(group.name)] * ROW,
                floor - height,
                CELL,
                height,
                BLUE,
                says=f"layer {group.name}: {percent(group.relative)}",
            )
        )
    strongest = max((m.relative for m in cells.values()), default=0.0)
    for row, kind in enumerate(kinds):
        y = floor + 12 + row * ROW
        shapes.append(Text(LEFT - 8, y + CELL - 4, kind, anchor="end"))
        shapes += [
            Rect(
                LEFT + column[layer] * ROW,
                y,
                CELL,
                CELL,
                BLUE,
                FAINTEST + (1 - FAINTEST) * (error.relative / strongest if strongest else 0.0),
                f"layer {layer}, {kind}: {percent(error.relative)}",
            )
            for (of, layer), error in cells.items()
            if of == kind
        ]
    foot = floor + 12 + len(kinds) * ROW
    every = max(1, math.ceil(len(layers) / 16))
    shapes += [
        Text(LEFT + n * ROW + CELL / 2, foot + 12, str(layer), anchor="middle")
        for n, layer in enumerate(layers)
        if n % every == 0
    ]
    shapes += [
        Text(LEFT - 8, foot + 12, "layer", anchor="end"),
        Text(LEFT, foot + 32, f"full colour: {percent(strongest)}"),
    ]
    return Picture(max(int(right) + 48, LEFT + 330), int(foot) + 46, title, tuple(shapes))


def _cells(matrices: Sequence[MatrixError]) -> dict[tuple[str, int], MatrixError]:
    """The worst matrix of each kind and layer (a layer's experts share a field); no norms."""
    cells: dict[tuple[str, int], MatrixError] = {}
    for m in matrices:
        if m.layer is None or m.kind.endswith("_norm"):
            continue
        held = cells.get((m.kind, m.layer))
        if held is None or m.relative > held.relative:
            cells[m.kind, m.layer] = m
    return cells


def _scale(highest: float, right: float) -> list[Rect | Text]:
    """Two lines across the bars, with what they stand for."""
    if not highest:
        return []
    return [
        shape
        for share in (0.5, 1.0)
        for shape in (
            Rect(LEFT, TOP + BARS * (1 - share), right - LEFT - GAP, 1, INK, 0.35),
            Text(right + 4, TOP + BARS * (1 - share) + 4, percent(highest * share)),
        )
    ]


def percent(share: float) -> str:
    """``6.18 %``; very small ones keep two digits."""
    if share == 0 or share >= 0.001:
        return f"{100 * share:.2f} %"
    return f"{100 * share:.2g} %"


# -------------------------------------------------------------------------------------- SVG, HTML


def svg(picture: Picture) -> str:
    """The picture as SVG, complete in itself."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{picture.width}" '
        f'height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}" role="img" '
        f'font-family="system-ui, sans-serif">'
    )
    return "\n".join(
        [head, f"<title>{escape(picture.title)}</title>", *map(_svg, picture.shapes), "</svg>", ""]
    )


def _svg(shape: Rect | Text) -> str:
    if isinstance(shape, Text):
        return (
            f'<text x="{shape.x:g}" y="{shape.y:g}" font-size="{shape.size}" '
            f'text-anchor="{shape.anchor}" fill="{INK}">{escape(shape.text)}</text>'
        )
    box = (
        f'<rect x="{shape.x:g}" y="{shape.y:.4g}" width="{shape.width:g}" '
        f'height="{shape.height:.4g}" fill="{shape.color}" fill-opacity="{shape.opacity:.3f}"'
    )
    return f"{box}><title>{escape(shape.says)}</title></rect>" if shape.says else f"{box}/>"


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .15rem .8rem .15rem 0; text-align: left } td + td, th + th { text-align: right }
svg { max-width: 100%; height: auto }
"""


def html(picture: Picture, found: Fidelity) -> str:
    """A page with the picture and the numbers; it loads nothing."""
    rows = [
        ("A", f"{found.a.name} {found.a.format}"),
        ("B", f"{found.b.name} {found.b.format}"),
    ]
    out = found.outputs
    if out is not None:
        rows += [
            ("KL divergence, mean", f"{out.kl_mean:.5f}"),
            ("99 %", f"{out.kl_99:.4f}"),
            ("max", f"{out.kl_max:.4f}"),
            ("same most probable token", f"{100 * out.same_top_1:.2f} %"),
            ("perplexity of A", f"{out.perplexity_a:.4f}"),
            ("perplexity of B", f"{out.perplexity_b:.4f}"),
            ("predictions", f"{out.predictions:,}"),
        ]
    weights = found.weights
    kinds = (
        [(g.name, percent(g.relative), f"{g.max_abs:.4g}") for g in weights.by_kind]
        if weights
        else []
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{escape(picture.title)}</title><style>{STYLE}</style>\n"
        f"<h1>{escape(found.b.name)} {escape(str(found.b.format))}</h1>\n"
        + _table(("", ""), rows)
        + svg(picture)
        + _table(("matrices", "relative error", "largest error"), kinds)
        + "</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

    title = line(head, "th") if any(head) else ""
    return "<table>" + title + "".join(line(row, "td") for row in rows) + "</table>\n"
