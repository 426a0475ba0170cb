"""How a process ended, in words."""

from __future__ import annotations

import signal

_SIGNALS = {
    "SIGKILL": "the engine was killed (SIGKILL), perhaps by the system for lack of memory",
    "SIGTERM": "the engine was told to stop (SIGTERM)",
    "SIGINT": "the engine was interrupted (SIGINT)",
    "SIGABRT": "the engine gave up (SIGABRT)",
    "SIGSEGV": "the engine crashed (SIGSEGV)",
    "SIGBUS": "the engine crashed (SIGBUS); the file may have been cut while in use",
    "SIGILL": "the engine uses instructions that this processor lacks (SIGILL)",
}


def ended(exit_code: int | None) -> str:
    """What an exit code of :class:`subprocess.Popen` means; ``None``: it lives."""
    if exit_code is None:
        return "the engine does not answer"
    if exit_code == 0:
        return "the engine stopped as if told to"
    if exit_code > 0:
        return f"the engine ended with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return _SIGNALS.get(name, f"the engine was ended by {name}")
