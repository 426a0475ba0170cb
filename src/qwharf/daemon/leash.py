"""Becomes a program that the kernel kills when its parent dies. Linux; run, never imported.

``python -I -S leash.py PARENT PROGRAM ARGUMENT…``: a step of its own between fork and engine,
because code in a fork of a process with threads (``preexec_fn``) may deadlock. What it asks for
outlasts the change of program.

The kernel kills the program alone. Some engines (vLLM, SGLang) are families, whose members live on
with the model in memory when the first of them is killed; so a guard stays behind that ends them.
"""

import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the end with the parent, leave a guard, then become the program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    guard_family()
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted


def guard_family() -> None:
    """Start a process that waits for our end, and then kills what is left of our group.

    It is nobody's child, so it is not taken for one of the program's.
    """
    us = os.getpid()
    if os.getpgid(0) != us or not hasattr(os, "pidfd_open"):  # not a group of our own
        return
    try:
        our_end = os.pidfd_open(us)
    except OSError:  # a kernel before 5.3
        return
    middle = os.fork()
    if middle:
        os.close(our_end)
        os.waitpid(middle, 0)
        return
    if os.fork():
        os._exit(0)
    for descriptor in (0, 1, 2):  # the program's: the daemon reads them to their end
        os.close(descriptor)
    select.select([our_end], [], [])
    os.killpg(us, signal.SIGKILL)


if __name__ == "__main__":
    main()
