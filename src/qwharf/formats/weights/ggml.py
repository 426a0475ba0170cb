"""Every tensor type of a GGUF file back to float32, block by block.

A block is a few bytes for 32 or 256 neighbouring elements of a row: a scale (float16, ``d``), often
scales of sub-blocks, and small numbers. The arithmetic follows llama.cpp's
``ggml/src/ggml-quants.c`` operation by operation in float32, so the values are its values, bit for
bit; block layouts are from ``ggml/src/ggml-common.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from qwharf.formats.ggml_types import GgmlType
from qwharf.formats.weights.floats import bf16_to_f32
from qwharf.formats.weights.ggml_grids import grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]
    F32 = NDArray[np.float32]


def dequantize(kind: GgmlType, raw: U8) -> F32:
    """The elements of whole blocks, flat.

    Args:
        kind: the tensor's type.
        raw: bytes of whole blocks, flat.

    Raises:
        ValueError: no type for weights, or no whole blocks.
    """
    if kind.name not in TYPES:
        raise ValueError(f"{kind.name} holds no weights that are understood")
    if raw.size % kind.block_bytes:
        raise ValueError(f"{raw.size} bytes are no whole blocks of {kind.name}")
    blocks = np.ascontiguousarray(raw).reshape(-1, kind.block_bytes)
    return np.asarray(TYPES[kind.name](blocks), np.float32).reshape(-1)


# ------------------------------------------------------------------------------------- pieces


def _f16(blocks: U8, at: int) -> F32:
    """The float16 at byte ``at`` of each block, [n, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _words(part: U8, dtype: str) -> NDArray[Any]:
    return np.ascontiguousarray(part).view(dtype)


def _nibbles(part: U8) -> U8:
    """Low nibbles of each run of bytes, then the high ones: [..., bytes] to [..., 2, bytes]."""
    return np.stack([part & np.uint8(15), part >> np.uint8(4)], axis=-2)


def _crumbs(part: U8) -> U8:
    """Bits 0-1 of each run of bytes, then 2-3, 4-5, 6-7: [..., bytes] to [..., 4, bytes]."""
    return np.stack([part >> np.uint8(s) & np.uint8(3) for s in (0, 2, 4, 6)], axis=-2)


def _bits(part: U8) -> U8:
    """Each byte's bits, lowest first: [...] to [..., 8]."""
    return np.unpackbits(part[..., None], axis=-1, bitorder="little")


def _signs(codes: U8) -> F32:
    """1 or -1 by each bit of sign bytes: [...] to [..., 8]."""
    return np.float32(1) - 2 * _bits(codes).astype(np.float32)


def _even_signs(seven: NDArray[Any]) -> F32:
    """As :func:`_signs`, of seven bits; the eighth makes the number of minus signs even."""
    code = seven.astype(np.uint8) & np.uint8(0x7F)
    parity = code ^ code >> np.uint8(4)
    parity ^= parity >> np.uint8(2)
    parity ^= parity >> np.uint8(1)
    return _signs(code | parity << np.uint8(7))


# ----------------------------------------------------------------------- blocks of 32 elements


def _f32(blocks: U8) -> F32:
    return np.array(_words(blocks, "<f4"), np.float32)


def _half(blocks: U8) -> F32:
    return _words(blocks, "<f2").astype(np.float32)


def _bf16(blocks: U8) -> F32:
    return bf16_to_f32(_words(blocks, "<u2"))


def _q4_0(blocks: U8) -> F32:
    numbers = _nibbles(blocks[:, 2:]).reshape(-1, 32).astype(np.float32) - np.float32(8)
    return numbers * _f16(blocks, 0)


def _q4_1(blocks: U8) -> F32:
    numbers = _nibbles(blocks[:, 4:]).reshape(-1, 32).astype(np.float32)
    return numbers * _f16(blocks, 0) + _f16(blocks, 2)


def _five(low: U8, high: U8) -> F32:
    """Five-bit numbers: nibbles, and the highest bits in element order."""
    numbers = _nibbles(low).reshape(-1, 32)
    return (numbers | _bits(high).reshape(-1, 32) << np.uint8(4)).astype(np.float32)


def _q5_0(blocks: U8) -> F32:
    return (_five(blocks[:, 6:], blocks[:, 2:6]) - np.float32(16)) * _f16(blocks, 0)


def _q5_1(blocks: U8) -> F32:
    return _five(blocks[:, 8:], blocks[:, 4:8]) * _f16(blocks, 0) + _f16(blocks, 2)


def _q8_0(blocks: U8) -> F32:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _f16(blocks, 0)


IQ4 = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
"""What the sixteen codes of IQ4 stand for."""
FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""What those of MXFP4 stand for, doubled."""


def _iq4_nl(blocks: U8) -> F32:
    return IQ4[_nibbles(blocks[:, 2:]).reshape(-1, 32)] * _f16(blocks, 0)


def _mxfp4(blocks: U8) -> F32:
    exponent = blocks[:, :1].astype(np.int32)
    # Half of 2 ** (e - 127), for the codes are doubled; the two smallest are no normal numbers.
    scale = np.ldexp(np.float32(1), exponent - 128).astype(np.float32)
    return FP4[_nibbles(blocks[:, 1:]).reshape(-1, 32)] * scale


# ---------------------------------------------------------------------- blocks of 256 elements


def _q2_k(blocks: U8) -> F32:
    scales = blocks[:, :16]
    d, dmin = _f16(blocks, 80), _f16(blocks, 82)
    scale = (d * (scales & np.uint8(15)).astype(np.float32))[:, :, None]
    least = (dmin * (scales >> np.uint8(4)).astype(np.float32))[:, :, None]
    numbers = _crumbs(blocks[:, 16:80].reshape(-1, 2, 32)).reshape(-1, 16, 16).astype(np.float32)
    return numbers * scale - least


def _q3_k(blocks: U8) -> F32:
    high = _bits(blocks[:, :32]).transpose(0, 2, 1).reshape(-1, 16, 16)
    low = _crumbs(blocks[:, 32:96].reshape(-1, 2, 32)).reshape(-1, 16, 16)
    packed = blocks[:, 96:108]
    scales = _nibbles(packed[:, :8]).reshape(-1, 16)
    scales |= _crumbs(packed[:, 8:]).reshape(-1, 16) << np.uint8(4)
    scale = _f16(blocks, 108) * (scales.astype(np.float32) - np.float32(32))
    # The high bit is set where four is *not* to be taken away.
    numbers = (low | high << np.uint8(2)).astype(np.float32) - np.float32(4)
    return numbers * scale[:, :, None]


def _six_bit(packed: U8) -> tuple[F32, F32]:
    """Eight scales and eight minima of six bits in twelve bytes."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    top = np.uint8(6)
    scales = np.concatenate(
        [first & np.uint8(63), third & np.uint8(15) | first >> top << np.uint8(4)], axis=1
    )
    least = np.concatenate(
        [second & np.uint8(63), third >> np.uint8(4) | second >> top << np.uint8(4)], axis=1
    )
    return scales.astype(np.float32), least.astype(np.float32)


def _q4_k(blocks: U8) -> F32:
    scales, least = _six_bit(blocks[:, 4:16])
    numbers = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32).astype(np.float32)
    numbers *= (_f16(blocks, 0) * scales)[:, :, None]
    return numbers - (_f16(blocks, 2) * least)[:, :, None]


def _q5_k(blocks: U8) -> F32:
    scales, least = _six_bit(blocks[:, 4:16])
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    high = _bits(blocks[:, 16:48]).transpose(0, 2, 1)
    numbers = (low | high << np.uint8(4)).astype(np.float32)
    numbers *= (_f16(blocks, 0) * scales)[:, :, None]
    return numbers - (_f16(blocks, 2) * least)[:, :, None]


def _q6_k(blocks: U8) -> F32:
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = _crumbs(blocks[:, 128:192].reshape(-1, 2, 32))
    numbers = (low | high << np.uint8(4)).astype(np.float32) - np.float32(32)
    scale = _f16(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return numbers.reshape(-1, 16, 16) * scale[:, :, None]


def _iq4_xs(blocks: U8) -> F32:
    low = np.stack([blocks[:, 4:8] & np.uint8(15), blocks[:, 4:8] >> np.uint8(4)], axis=2)
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    high = (_words(blocks[:, 2:4], "<u2") >> shifts & np.uint16(3)).astype(np.uint8)
    scales = low.reshape(-1, 8) | high << np.uint8(4)
    scale = _f16(blocks, 0) * (scales.astype(np.float32) - np.float32(32))
    numbers = IQ4[_nibbles(blocks[:, 8:].reshape(-1, 8, 16)).reshape(-1, 8, 32)]
    return np.asarray(numbers * scale[:, :, None])


# ----------------------------------- blocks of 256 elements, groups of eight or four from a table


def _iq2_xxs(blocks: U8) -> F32:
    codes, tail = _by_32(blocks[:, 2:], 2)
    scale = _f16(blocks, 0) * (np.float32(0.5) + (tail >> 28).astype(np.float32))
    scale = (scale * np.float32(0.25))[:, :, None, None]
    shifts = np.array([0, 7, 14, 21], np.uint32)
    values = grid("IQ2_XXS")[codes]
    return scale * values * _even_signs(tail[:, :, None] >> shifts & np.uint32(0x7F))


def _by_32(part: U8, words: int) -> tuple[U8, NDArray[Any]]:
    """Of each eighth of a block: four codes in the first word, and the last word."""
    eighths = _words(part, "<u4").reshape(-1, 8, words)
    codes = np.ascontiguousarray(eighths[:, :, 0]).view(np.uint8).reshape(-1, 8, 4)
    return codes, eighths[:, :, -1]


def _sixteen(scales: U8) -> F32:
    """Two scales a byte, low nibble first."""
    both = np.stack([scales & np.uint8(15), scales >> np.uint8(4)], axis=2)
    return both.reshape(-1, 2 * scales.shape[1]).astype(np.float32)


def _quarter(blocks: U8, scales: U8) -> F32:
    """The scale of each sixteen elements, [n, 16, 1, 1]."""
    made = _f16(blocks, 0) * (np.float32(0.5) + _sixteen(scales)) * np.float32(0.25)
    return np.asarray(made[:, :, None, None])


def _iq2_xs(blocks: U8) -> F32:
    codes = _words(blocks[:, 2:66], "<u2").reshape(-1, 16, 2)
    values = grid("IQ2_XS")[codes & np.uint16(511)]
    signs = _even_signs(codes >> np.uint16(9))
    return np.asarray(_quarter(blocks, blocks[:, 66:]) * values * signs)


def _iq2_s(blocks: U8) -> F32:
    high = blocks[:, 66:74, None] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)
    codes = blocks[:, 2:34].astype(np.uint16) | high.reshape(-1, 32).astype(np.uint16) << 8
    values = grid("IQ2_S")[codes.reshape(-1, 16, 2)]
    signs = _signs(blocks[:, 34:66]).reshape(-1, 16, 2, 8)
    return np.asarray(_quarter(blocks, blocks[:, 74:]) * values * signs)


def _iq3_xxs(blocks: U8) -> F32:
    tail = _words(blocks[:, 66:], "<u4")
    scale = _f16(blocks, 0) * (np.float32(0.5) + (tail >> 28).astype(np.float32))
    scale = (scale * np.float32(0.5))[:, :, None, None]
    shifts = np.array([0, 7, 14, 21], np.uint32)
    signs = _even_signs(tail[:, :, None] >> shifts & np.uint32(0x7F))
    values = grid("IQ3_XXS")[blocks[:, 2:66]].reshape(-1, 8, 4, 8)
    return scale * values * signs


def _iq3_s(blocks: U8) -> F32:
    high = _bits(blocks[:, 66:74]).reshape(-1, 64).astype(np.uint16)
    codes = blocks[:, 2:66].astype(np.uint16) | high << np.uint16(8)
    values = grid("IQ3_S")[codes].reshape(-1, 8, 4, 8)
    scale = _f16(blocks, 0) * (np.float32(1) + 2 * _sixteen(blocks[:, 106:]))
    signs = _signs(blocks[:, 74:106]).reshape(-1, 8, 4, 8)
    return scale[:, :, None, None] * values * signs


DELTA = np.float32(0.125)
"""By how much IQ1 shifts a group of eight, up or down."""


def _iq1_s(blocks: U8) -> F32:
    head = _words(blocks[:, 34:], "<u2")
    scale = _f16(blocks, 0) * (2 * (head >> 12 & 7).astype(np.float32) + np.float32(1))
    shift = np.where(head & 0x8000, -DELTA, DELTA)
    high = head[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)
    codes = blocks[:, 2:34].reshape(-1, 8, 4).astype(np.uint16) | high << np.uint16(8)
    values = grid("IQ1_S")[codes]
    return np.asarray(scale[:, :, None, None] * (values + shift[:, :, None, None]))


def _iq1_m(blocks: U8) -> F32:
    words = _words(blocks[:, 48:], "<u2")
    # The block's own scale is spread over the top four bits of four words.
    quarters = words >> np.uint16(12) << np.array([0, 4, 8, 12], np.uint16)
    d = _words(np.bitwise_or.reduce(quarters, axis=1).view(np.uint8), "<f2").astype(np.float32)
    small = words[:, :, None] >> np.array([0, 3, 6, 9], np.uint16) & np.uint16(7)
    scale = d[:, None] * (2 * small.reshape(-1, 16).astype(np.float32) + np.float32(1))
    halves = np.stack([blocks[:, 32:48] & np.uint8(15), blocks[:, 32:48] >> np.uint8(4)], axis=2)
    halves = halves.reshape(-1, 32).astype(np.uint16)
    codes = blocks[:, :32].astype(np.uint16) | (halves & np.uint16(7)) << np.uint16(8)
    shift = np.where(halves & 8, -DELTA, DELTA).reshape(-1, 16, 2, 1)
    values = grid("IQ1_S")[codes.reshape(-1, 16, 2)]
    return scale[:, :, None, None] * (values + shift)


TYPES: dict[str, Callable[[U8], F32]] = {
    "F32": _f32, "F16": _half, "BF16": _bf16, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0,
    "Q5_1": _q5_1, "Q8_0": _q8_0, "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k,
    "Q6_K": _q6_k, "IQ2_XXS": _iq2_xxs, "IQ2_XS": _iq2_xs, "IQ2_S": _iq2_s, "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s, "IQ1_S": _iq1_s, "IQ1_M": _iq1_m, "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}  # fmt: skip
"""What can be read, by the name of the type."""
