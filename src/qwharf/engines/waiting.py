"""One at a time: installing and removing the same version of an engine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qwharf.file_locks import try_lock, unlock

PAUSE_SECONDS = 0.2


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold the lock ``path``, waiting as long as its holder lives; whether it had to wait.

    Programs that :func:`qwharf.engines.running.run` starts meanwhile inherit it: should we be
    killed, it is theirs until the last of them has ended. The lock's file stays: an empty one
    costs nothing, and deleting it would need care.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    waited = False
    try:
        while not try_lock(handle):
            if not waited and on_wait is not None:
                on_wait()
            waited = True
            time.sleep(PAUSE_SECONDS)
        os.set_inheritable(handle, True)
        try:
            yield waited
        finally:
            unlock(handle)
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock ``path`` now."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        if not try_lock(handle):
            return True
        unlock(handle)
        return False
    finally:
        os.close(handle)
