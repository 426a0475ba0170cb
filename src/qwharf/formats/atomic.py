"""A file that appears under its name only when it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from qwharf.errors import StorageError


class AtomicFile:
    """Written beside its final name as ``NAME.partial``; a kill leaves no more than that."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + ".partial")
        self._file: BinaryIO | None = None

    def open(self, head: bytes) -> None:
        """Begin, in place of what an earlier run may have left.

        Raises:
            StorageError: the disk is full or closed to us.
        """
        try:
            self._file = self._partial.open("wb")
        except OSError as e:
            raise self._failed(e) from e
        self.write(head)

    def write(self, data: bytes | memoryview) -> None:
        """Append; on an error the partial file is removed.

        Raises:
            StorageError: the disk is full or closed to us.
            ValueError: not open.
        """
        if self._file is None:
            raise ValueError(f"{self.path.name} is not open")
        try:
            self._file.write(data)
        except OSError as e:
            self.discard()
            raise self._failed(e) from e

    def commit(self) -> None:
        """Bring all to disk, then give the file its name.

        Raises:
            StorageError: the disk is full or closed to us.
            ValueError: not open.
        """
        if self._file is None:
            raise ValueError(f"{self.path.name} is not open")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.replace(self.path)
        except OSError as e:
            self.discard()
            raise self._failed(e) from e
        self._file = None

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()  # flushes, which fails again on a full disk
        except OSError:
            pass
        finally:
            self._partial.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            str(self.path),
            found=error.strerror or str(error),
            expected="room and permission to write",
            hint="free some space, or choose another folder",
        )
