"""The picture as PNG, with letters of five by seven dots: no drawing library is needed."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from qwharf.fidelity.picture import INK, LARGE, Picture, Rect, Text

SCALE = 2
"""Dots per pixel of the layout."""
ADVANCE, HEIGHT = 6, 7
BELOW = "gpqy,"
"""Letters that reach below the line."""

Canvas = NDArray[np.float32]
"""[height, width, 4]: red, green, blue, opacity, from 0 to 1."""


def png(picture: Picture) -> bytes:
    """The file's bytes; the ground is transparent."""
    canvas: Canvas = np.zeros((picture.height * SCALE, picture.width * SCALE, 4), np.float32)
    for shape in picture.shapes:
        if isinstance(shape, Rect):
            _fill(canvas, shape)
        else:
            _write(canvas, shape)
    return _encoded(np.rint(canvas * 255).astype(np.uint8))


def _color(text: str) -> NDArray[np.float32]:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


def _fill(canvas: Canvas, box: Rect) -> None:
    top, bottom = round(box.y * SCALE), round((box.y + box.height) * SCALE)
    left, right = round(box.x * SCALE), round((box.x + box.width) * SCALE)
    part = canvas[top:bottom, left:right]
    part[..., :3] = _color(box.color)
    part[..., 3] = np.maximum(part[..., 3], np.float32(box.opacity))


def _write(canvas: Canvas, line: Text) -> None:
    dot = 3 if line.size >= LARGE else 2
    width = len(line.text) * ADVANCE * dot
    left = round(line.x) * SCALE
    left -= {"start": 0, "middle": width // 2, "end": width}[line.anchor]
    top = round(line.y) * SCALE - HEIGHT * dot
    color = _color(INK)
    for n, letter in enumerate(line.text):
        lower = 2 * dot if letter in BELOW else 0
        for y, row in enumerate(GLYPHS.get(letter, GLYPHS["?"])):
            for x in range(5):
                if row >> (4 - x) & 1:
                    at_y, at_x = top + lower + y * dot, left + (n * ADVANCE + x) * dot
                    if at_y >= 0 and at_x >= 0:
                        canvas[at_y : at_y + dot, at_x : at_x + dot, :3] = color
                        canvas[at_y : at_y + dot, at_x : at_x + dot, 3] = 1


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of 8-bit RGBA (ISO/IEC 15948): signature, IHDR, IDAT with unfiltered rows, IEND."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


DOTS = """
0ehjlphe 14c4444e 2eh1248v 3v2421he 426aiv22 5vgu11he 668guhhe 7v124888 8ehhehhe 9ehhf12c
Aehhvhhh Buhhuhhu Cehggghe Dsihhhis Evgguggv Fvgguggg Gehgnhhf Hhhhvhhh Ie44444e J72222ic
Khikokih Lggggggv Mhrllhhh Nhhpljhh Oehhhhhe Puhhuggg Qehhhlid Ruhhukih Sfgge11u Tv444444
Uhhhhhhe Vhhhhha4 Whhhllla Xhha4ahh Yhha4444 Zv1248gv a00e1fhf bggmphhu c00egghe d11djhhf
e00ehvge f698s888 gfhhhf1e hggmphhh i40c444e j20622ic kggikoki lc44444e m00qllhh n00mphhh
o00ehhhe puhhhugg qfhhhf11 r00mpggg s00ege1u t88s8896 u00hhhjd v00hhha4 w00hhlla x00ha4ah
yhhhhf1e z00v248v %op248j3 .00000cc ,000cc48 :0cc0cc0 -000v000 _000000v /01248g0 (2488842
)8422248 +044v440 =00v0v00 ?eh12404
"""
"""A letter, and its seven rows from the top, each five dots as a digit to the base of 32."""


def glyphs() -> dict[str, tuple[int, ...]]:
    """Rows of dots by letter."""
    made = {word[0]: tuple(int(digit, 32) for digit in word[1:]) for word in DOTS.split()}
    return made | {" ": (0,) * HEIGHT}


GLYPHS = glyphs()
