"""The system's lock on an open file: gone with the process that holds it, however it ends.

What is built of it differs (:mod:`qwharf.artifacts.locks`, :mod:`qwharf.daemon.lock`); what each
system calls it stands here alone.
"""

from __future__ import annotations

import os

if os.name == "nt":  # pragma: no cover - Windows
    import msvcrt

    def try_lock(handle: int) -> bool:
        """Lock the open file, if nobody else holds it."""
        try:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

    def unlock(handle: int) -> None:
        """Give the lock back; closing the file does so too."""
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:
    import fcntl

    def try_lock(handle: int) -> bool:
        """Lock the open file, if nobody else holds it."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(handle: int) -> None:
        """Give the lock back; closing the file does so too."""
        fcntl.flock(handle, fcntl.LOCK_UN)
