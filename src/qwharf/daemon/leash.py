"""Becomes a program that the kernel kills when its parent dies. Linux; run, never imported.

``python -I -S leash.py PARENT PROGRAM ARGUMENT…``: a step of its own between fork and engine,
because code in a fork of a process with threads (``preexec_fn``) may deadlock. What it asks for
outlasts the change of program.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the end with the parent, then become the program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
