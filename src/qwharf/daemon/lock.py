"""A lock that a process holds through an open file, so that the system frees it when it dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from qwharf.file_locks import try_lock

PAUSE_SECONDS = 0.02


class Lock:
    """Exclusive, between processes, on a file that is never deleted. Not re-entrant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(
        self, patience_seconds: float = 0.0, give_up: Callable[[], None] | None = None
    ) -> bool:
        """Take it, trying for ``patience_seconds``; ``give_up`` is asked in between and may raise.

        Raises:
            OSError: the file cannot be opened or made.
        """
        if self._handle is not None:
            raise RuntimeError(f"{self._path} is held already")
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        handle = os.open(self._path, flags, 0o600)
        end = time.monotonic() + patience_seconds
        try:
            while not try_lock(handle):
                if time.monotonic() >= end:
                    return False
                if give_up is not None:
                    give_up()
                time.sleep(PAUSE_SECONDS)
            self._handle, handle = handle, -1
            return True
        finally:
            if handle >= 0:
                os.close(handle)

    def release(self) -> None:
        """Give it back, if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock ``path``; makes no file.

    Holds the lock for an instant to find out: takers should try for a moment.
    """
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:  # not there; or not ours, and then the daemon that we could use is not either
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
