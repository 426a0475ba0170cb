"""Small GGUF and safetensors files, put together byte by byte without qwharf's own writers."""

from __future__ import annotations

import json
import struct
from typing import Any

CODES = {
    "u8": (0, "<B"), "i8": (1, "<b"), "u16": (2, "<H"), "i16": (3, "<h"), "u32": (4, "<I"),
    "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "str": (8, ""), "u64": (10, "<Q"),
    "i64": (11, "<q"), "f64": (12, "<d"),
}  # fmt: skip


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def plain(kind: str, value: Any) -> bytes:
    return text(value.encode()) if kind == "str" else struct.pack(CODES[kind][1], value)


def key(name: str, kind: str, value: Any) -> bytes:
    """One metadata entry; ``[u32]`` is a list of u32."""
    if kind.startswith("["):
        item = kind[1:-1]
        head = struct.pack("<IIQ", 9, CODES[item][0], len(value))
        return text(name.encode()) + head + b"".join(plain(item, v) for v in value)
    return text(name.encode()) + struct.pack("<I", CODES[kind][0]) + plain(kind, value)


def info(name: str, sizes: tuple[int, ...], type_id: int, offset: int) -> bytes:
    """One tensor's entry; ``sizes`` in GGUF's own order, rows first."""
    return (
        text(name.encode())
        + struct.pack(f"<I{len(sizes)}q", len(sizes), *sizes)
        + struct.pack("<IQ", type_id, offset)
    )


def gguf(
    keys: list[bytes],
    infos: list[bytes],
    data: bytes,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    head = magic + struct.pack(
        "<Iqq",
        version,
        len(infos) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    head += b"".join(keys) + b"".join(infos)
    return head + b"\0" * (-len(head) % alignment) + data


def safetensors(header: Any, data: bytes, *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data
