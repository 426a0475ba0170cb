"""Open a file that came from outside, with typed errors instead of the system's."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qwharf.errors import InvalidFile, StorageError

BUFFER_BYTES = 1 << 20


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
        raise StorageError(
            str(path),
            found=e.strerror or str(e),
            expected="a readable file",
            hint="check its permissions and the disk",
        ) from e


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
