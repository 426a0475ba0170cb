"""The picture: whole SVG, a page that loads nothing, a PNG that decodes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from qwharf.errors import StorageError, UsageError
from qwharf.fidelity import picture, raster
from qwharf.fidelity.report import Fidelity, GroupError, MatrixError, Side, WeightErrors
from qwharf.types import Format

KINDS = ("attn_q", "attn_k", "ffn_down", "attn_q_norm")


def found(layers: int = 36, error: float = 0.06) -> Fidelity:
    side = Side(
        path=Path("x"),
        name="<mine>",
        format=Format("gguf", "q4_k_m"),
        size_bytes=1,
        bits_per_weight=5,
    )
    matrices = tuple(
        MatrixError(
            name=f"{layer}.{kind}",
            kind=kind,
            layer=layer,
            elements=1,
            relative=error * (1 + layer / 50),
            max_abs=0.1,
        )
        for layer in range(layers)
        for kind in KINDS
    )
    groups = tuple(
        GroupError(name=str(n), matrices=3, elements=3, relative=error * (1 + n / 50), max_abs=0.1)
        for n in range(layers)
    )
    weights = WeightErrors(
        total=GroupError(name="all", matrices=9, elements=9, relative=error, max_abs=0.1),
        by_kind=groups[:1],
        by_layer=groups,
        matrices=matrices,
    )
    return Fidelity(a=side, b=side, weights=weights, outputs=None)


def drawn(comparison: Fidelity) -> picture.Picture:
    assert comparison.weights is not None
    return picture.draw(comparison, comparison.weights)


@pytest.mark.parametrize("layers", [1, 4, 36, 94])
@pytest.mark.parametrize("error", [0.0, 1e-7, 0.06, 3.0])
def test_svg_is_whole_and_everything_lies_within(layers: int, error: float) -> None:
    made = drawn(found(layers, error))
    root = ElementTree.fromstring(picture.svg(made))  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    boxes = root.findall(f"{space}rect")
    assert len([b for b in boxes if b.find(f"{space}title") is not None]) == layers * (1 + 3)
    for box in boxes:
        x, y = float(box.attrib["x"]), float(box.attrib["y"])
        assert x >= 0
        assert y >= 0
        assert x + float(box.attrib["width"]) <= made.width
        assert y + float(box.attrib["height"]) <= made.height
    for shape in made.shapes:
        if isinstance(shape, picture.Text):
            assert 0 < shape.y <= made.height


def test_names_are_escaped() -> None:
    text = picture.svg(drawn(found()))
    assert "&lt;mine&gt;" in text
    assert "<mine>" not in picture.html(drawn(found()), found())


def test_the_page_loads_nothing() -> None:
    text = picture.html(drawn(found()), found())
    without_names = text.replace("http://www.w3.org/2000/svg", "")
    assert "http" not in without_names
    assert "script" not in text
    assert "<svg" in text


def decoded(data: bytes) -> np.ndarray:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        part = data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + part)
        if kind == b"IHDR":
            size = struct.unpack(">II", part[:8])
            assert part[8:] == bytes([8, 6, 0, 0, 0])
        body += part if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(size[1], 1 + 4 * size[0])
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(size[1], size[0], 4)


def test_png_shows_the_same_boxes() -> None:
    made = drawn(found(4))
    pixels = decoded(raster.png(made))
    assert pixels.shape == (made.height * raster.SCALE, made.width * raster.SCALE, 4)
    assert pixels[0, 0, 3] == 0  # a transparent ground
    box = next(s for s in made.shapes if isinstance(s, picture.Rect) and s.says)
    y, x = (int((v + 3) * raster.SCALE) for v in (box.y, box.x))
    assert pixels[y, x].tolist() == [0x3F, 0x7F, 0xD6, 255]


def test_every_letter_of_a_picture_can_be_written() -> None:
    shown = {c for s in drawn(found()).shapes if isinstance(s, picture.Text) for c in s.text}
    assert shown <= raster.GLYPHS.keys()
    assert all(len(rows) == 7 and max(rows) < 32 for rows in raster.GLYPHS.values())
    assert len(raster.GLYPHS) > 70
    assert len(set(raster.GLYPHS.values())) == len(raster.GLYPHS)


@pytest.mark.parametrize("ending", ["svg", "html", "png"])
def test_saving(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"error.{ending}"
    picture.check_ending(path)
    picture.save(found(), path)
    assert path.stat().st_size > 1000
    with pytest.raises(StorageError):
        picture.save(found(), tmp_path / "absent" / f"error.{ending}")


def test_other_endings_are_refused(tmp_path: Path) -> None:
    for check in (picture.check_ending, lambda path: picture.save(found(), path)):
        with pytest.raises(UsageError, match=r"\.svg, \.html, \.png"):
            check(tmp_path / "error.pdf")


def test_percentages() -> None:
    shown = [picture.percent(x) for x in (0, 0.0618, 0.001, 1.2e-9, 2.5)]
    assert shown == ["0.00 %", "6.18 %", "0.10 %", "1.2e-07 %", "250.00 %"]
