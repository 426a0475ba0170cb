"""Small whole numbers packed densely into 32-bit words, lowest bits first.

Element ``i`` of a row takes the bits from ``i * bits`` on, whether or not they cross a word. For
2, 4 and 8 bits no element does, so this is also the plain layout of eight nibbles per word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def packed_words(count: int, bits: int) -> int:
    """Words that ``count`` elements take."""
    return -(-count * bits // 32)


def pack(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """Pack the last axis; values must be below ``2 ** bits``, for 1 to 8 bits."""
    *lead, count = values.shape
    values = np.ascontiguousarray(values, np.uint8)
    words = packed_words(count, bits)
    if words * 32 != count * bits:
        pad = np.zeros((*lead, -(-words * 32 // bits) - count), np.uint8)
        values = np.concatenate([values, pad], axis=-1)
    if bits == 8:
        packed = values
    elif bits == 4:
        packed = values[..., 0::2] | values[..., 1::2] << np.uint8(4)
    elif bits == 2:
        packed = values[..., 0::4] | values[..., 1::4] << np.uint8(2)
        packed |= values[..., 2::4] << np.uint8(4) | values[..., 3::4] << np.uint8(6)
    elif bits == 6 and values.shape[-1] % 4 == 0:
        a, b, c, d = (values[..., n::4] for n in range(4))
        parts = (a | b << np.uint8(6), b >> np.uint8(2) | c << np.uint8(4))
        packed = np.stack([*parts, c >> np.uint8(4) | d << np.uint8(2)], axis=-1)
        packed = packed.reshape(*lead, -1)
    else:
        single = np.unpackbits(values[..., None], axis=-1, bitorder="little")[..., :bits]
        packed = np.packbits(single.reshape(*lead, -1), axis=-1, bitorder="little")
    packed = np.ascontiguousarray(packed[..., : 4 * words])
    return packed.view("<u4").astype(np.uint32, copy=False)


def unpack(words: NDArray[Any], bits: int, count: int) -> NDArray[np.uint8]:
    """The first ``count`` elements of each row; inverse of :func:`pack`.

    Raises:
        ValueError: the rows are too short.
    """
    if words.shape[-1] < packed_words(count, bits):
        raise ValueError(f"{words.shape[-1]} words cannot hold {count} numbers of {bits} bits")
    raw = np.ascontiguousarray(words).view(np.uint8)
    if bits == 8:
        out = raw
    elif bits == 4:
        out = np.empty((*raw.shape[:-1], raw.shape[-1] * 2), np.uint8)
        out[..., 0::2] = raw & np.uint8(15)
        out[..., 1::2] = raw >> np.uint8(4)
    elif bits == 2:
        out = np.empty((*raw.shape[:-1], raw.shape[-1] * 4), np.uint8)
        for n in range(4):
            out[..., n::4] = raw >> np.uint8(2 * n) & np.uint8(3)
    else:
        single = np.unpackbits(raw, axis=-1, count=count * bits, bitorder="little")
        single = single.reshape(*raw.shape[:-1], count, bits)
        out = np.packbits(single, axis=-1, bitorder="little")[..., 0]
    return out[..., :count]
