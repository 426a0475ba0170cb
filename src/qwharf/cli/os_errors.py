"""What the operating system says, as errors of ours."""

from __future__ import annotations

import errno

from qwharf.errors import QwharfError, StorageError

HINTS = {
    errno.ENOSPC: "free some space (`qwharf store gc` removes what nothing uses) and run it again",
    errno.EROFS: "set QWHARF_HOME to a folder that can be written",
    errno.EACCES: "set QWHARF_HOME to a folder of yours, or correct the permissions",
    errno.EPERM: "set QWHARF_HOME to a folder of yours, or correct the permissions",
    errno.EDQUOT: "free some space: your disk quota is used up",
}


def typed(error: OSError) -> QwharfError:
    """The :class:`StorageError` for an error that no module expected."""
    return StorageError(
        str(error.filename or "file system"),
        found=error.strerror or str(error),
        hint=HINTS.get(error.errno or 0, "see `qwharf doctor`"),
    )
