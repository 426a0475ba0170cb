"""Locks between processes: held by an open file, so the system frees them when a holder dies."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qwharf.file_locks import try_lock, unlock


class FileLock:
    """An exclusive lock on ``path``, also between threads; not re-entrant.

    The file may be deleted by its holder: whoever locked a file that has lost its name meanwhile
    takes the new one instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if it is free."""
        assert self._handle is None, "not re-entrant"  # noqa: S101
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            if not try_lock(handle):
                os.close(handle)
                return False
            if self._still_named(handle):
                self._handle = handle
                return True
            os.close(handle)

    def _still_named(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self, *, delete: bool = False) -> None:
        """Give the lock back; with ``delete`` remove its file first (never on Windows)."""
        if self._handle is None:
            return
        if delete and os.name != "nt":
            self.path.unlink(missing_ok=True)
        unlock(self._handle)
        os.close(self._handle)
        self._handle = None


@contextlib.contextmanager
def locked(
    path: Path,
    on_wait: Callable[[], None] | None = None,
    *,
    give_up: Callable[[], None] | None = None,
    delete: bool = False,
) -> Iterator[None]:
    """Hold the lock ``path``; wait for it as long as its holder lives.

    Args:
        path: the lock's file; its folder must exist.
        on_wait: called once, if there is something to wait for.
        give_up: called again and again while waiting; raises to stop.
        delete: remove the lock's file in the end.
    """
    lock = FileLock(path)
    pause = 0.002
    told = False
    while not lock.try_acquire():
        if not told and on_wait is not None:
            on_wait()
        told = True
        if give_up is not None:
            give_up()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    try:
        yield
    finally:
        lock.release(delete=delete)


def is_held(path: Path) -> bool:
    """Whether a living process (or another thread) holds the lock ``path``."""
    if not path.exists():
        return False
    lock = FileLock(path)
    if lock.try_acquire():
        lock.release()
        return False
    return True
