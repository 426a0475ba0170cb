"""Open a file that came from outside, with typed errors instead of the system's."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from qwharf.errors import InvalidFile, StorageError

BUFFER_BYTES = 1 << 20
MAX_JSON_VALUES = 1 << 22
"""Qwen3's tokenizer.json has 800,000. A value takes up to 100 bytes of memory, however short its
text."""


@contextmanager
def open_binary(path: Path, buffering: int = BUFFER_BYTES) -> Iterator[tuple[BinaryIO, int]]:
    """The open file and its size in bytes. A pipe or device is refused before it can block.

    Raises:
        InvalidFile: there is no file, or it is not a regular one.
        StorageError: it may not be read, or the disk fails.
    """
    try:
        size = _regular_size(path)
        with path.open("rb", buffering) as file:
            yield file, size
    except (FileNotFoundError, NotADirectoryError) as e:
        raise InvalidFile(
            str(path), found="no file", expected="a readable file", hint="check the path"
        ) from e
    except OSError as e:
        raise _unreadable(path, e) from e


def read_span(
    path: Path, offset: int, size_bytes: int, *, what: str, hint: str, chunk_bytes: int
) -> Iterator[bytes]:
    """``size_bytes`` from ``offset``, at most ``chunk_bytes`` at a time.

    Args:
        path: the file.
        offset: from its beginning, in bytes.
        size_bytes: of the span.
        what: whose bytes they are, for the error.
        hint: what to do about a file that is too short.
        chunk_bytes: the most that is held.

    Raises:
        InvalidFile: the file became shorter since its header was read.
    """
    with open_binary(path, 0) as (file, _):
        file.seek(offset)
        left = size_bytes
        while left:
            data = file.read(min(left, chunk_bytes))
            if not data:
                raise InvalidFile(
                    str(path), found=f"the end, {left:,} bytes early", expected=what, hint=hint
                )
            left -= len(data)
            yield data


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        str(path),
        found=error.strerror or str(error),
        expected="a readable file",
        hint="check its permissions and the disk",
    )


def is_file(path: Path) -> bool:
    """Whether there is a regular file (or a link to one).

    Raises:
        StorageError: the folder may not be looked into.
    """
    try:
        return path.is_file()
    except OSError as e:
        raise _unreadable(path, e) from e


def _regular_size(path: Path) -> int:
    # The system calls would answer it with a bare ValueError.
    if "\0" in str(path):
        raise InvalidFile(repr(str(path)), found="a NUL in the path", expected="a path")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InvalidFile(str(path), found=kind, expected="a file", hint="check the path")
    return status.st_size


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole content.

    Raises:
        InvalidFile: no such file, or larger than ``limit`` bytes.
        StorageError: it may not be read.
    """
    with open_binary(path) as (file, size):
        if size > limit:
            raise InvalidFile(
                str(path), found=f"{size:,} bytes", expected=f"at most {limit:,} bytes"
            )
        return file.read(limit)


def parse_json(
    path: Path,
    raw: bytes,
    *,
    limit: int = MAX_JSON_VALUES,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value that ``raw``, read from ``path``, is the JSON text of.

    Args:
        path: named in errors.
        raw: UTF-8, with or without a byte order mark.
        limit: how many values it may have.
        pairs: makes an object of its members.

    Raises:
        InvalidFile: not JSON, nested too deeply, or of too many values.
    """
    # Each value but the first follows one of these.
    values = sum(map(raw.count, (b"[", b"{", b":", b",")))
    if values > limit:
        raise InvalidFile(
            str(path), found=f"JSON of over {limit:,} values", expected="far fewer", values=values
        )
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as e:
        raise InvalidFile(
            str(path),
            found=f"text that is not JSON ({str(e)[:200]})",
            expected="JSON",
            hint="fetch it again; it is damaged or was cut off",
        ) from e
