"""Why an engine written in Python gave up: its own reason, out of the tracebacks of many processes.

One failure is told many times over: the process that met it prints a traceback, the one that
started that process prints another that says only that something failed, and so on up. The first
exception of a start, the last of its chain, is the one that names the fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from qwharf.platforms.exits import ended

_DAEMON = "--- qwharf:"
"""What the daemon writes between the engine's lines."""
_PREFIX = re.compile(
    r"^(?:\x1b\[[\d;]*m)*(?:\([\w-]+ pid=\d+\)\s?)?(?:\x1b\[[\d;]*m)*"
    r"(?:(?:ERROR|WARNING|INFO|CRITICAL|DEBUG) \d\d-\d\d \d\d:\d\d:\d\d (?:\S+ )?\[[^\]]+\] ?"
    r"|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\] )?"
)
"""``(EngineCore pid=7) ERROR 11-25 08:00:00 [core.py:1] `` of vLLM, ``[2026-11-25 08:00:00 TP0] ``
of SGLang."""
_EXCEPTION = re.compile(
    r"^(?P<kind>(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure))"
    r"(?:: (?P<what>.*))?$"
)
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
_EMPTY = re.compile(
    r"engine core initialization failed|engine process failed to start|enginecore encountered"
    r"|workerproc initialization failed|failed core proc|rank \d+ scheduler died"
    r"|eof.* while reading|server process|scheduler hit an exception|child process"
    r"|child.* died|initialization failed due to an exception",
    re.IGNORECASE,
)
"""Exceptions that only say that there was one."""
_OPTION = re.compile(r"^(?:usage: )?.*?: error: (?P<what>.+)$")
_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|unable to allocate|bad_alloc"
    r"|MemoryError|not enough memory|attempting to allocate",
    re.IGNORECASE,
)
_PORT = re.compile(r"address already in use|port \d+ (?:is )?(?:already )?in use", re.IGNORECASE)

Phase = Callable[[str], str | None]
Known = Sequence[tuple[re.Pattern[str], str]]
"""What an engine is known to say, and how it is told, with the pattern's groups filled in."""


def explain(
    log: Sequence[str],
    exit_code: int | None,
    *,
    phase: Phase,
    start: str | None = None,
    known: Known = (),
) -> str:
    """Why the latest start in ``log`` failed, or the engine died, in one sentence.

    Args:
        log: its last lines.
        exit_code: see :func:`qwharf.platforms.exits.ended`.
        phase: the platform's; what was being done when it ended is told where it gave no reason.
        start: what its first line has, where one log may hold several starts.
        known: tried in this order before anything else.
    """
    lines = _latest(log, start)
    phases = [name for line in lines if (name := phase(line)) is not None]
    running = bool(phases) and phases[-1] == "ready"
    if running:  # what is said before is about the start; single requests may have failed since
        at = max(i for i, line in enumerate(lines) if phase(line) == "ready")
        lines = lines[at + 1 :]
    if exit_code is None and running:
        return ended(None)
    said = None if running and exit_code in (None, 0) else _reason(lines, known, last=running)
    if said is not None:
        return said if exit_code is None or exit_code >= 0 else f"{ended(exit_code)}: {said}"
    if exit_code is None:
        return f"the engine did not finish {phases[-1]}" if phases else "the engine said nothing"
    if exit_code != 0 and phases and not running:
        return f"{ended(exit_code)} while {phases[-1]}"
    if exit_code > 0 and lines:
        return f"{ended(exit_code)}: {lines[-1].strip()}"
    return ended(exit_code)


def _latest(log: Sequence[str], start: str | None) -> list[str]:
    lines = [_PREFIX.sub("", line.rstrip()) for line in log if not line.startswith(_DAEMON)]
    lines = [line for line in lines if line.strip()]
    starts = [i for i, line in enumerate(lines) if start is not None and start in line]
    return lines[starts[-1] :] if starts else lines


def _reason(lines: Sequence[str], known: Known, *, last: bool) -> str | None:
    for pattern, told in known:
        for line in lines:
            if found := pattern.search(line):
                return told.format(**found.groupdict())
    chains = _chains(lines)
    good = [chain for chain in chains if chain]
    if good:
        return _in_words(good[-1 if last else 0][-1])
    for line in lines:
        if found := _OPTION.match(line):
            return f"an option was refused: {found['what']}"
        if _PORT.search(line):
            return "its port is in use"
        if _MEMORY.search(line):
            return f"not enough memory: {line.strip()}"
    return None


def _chains(lines: Sequence[str]) -> list[list[str]]:
    """The exceptions of every traceback that say something, those of one chain together."""
    chains: list[list[str]] = []
    inside = chained = False
    for line in lines:
        if line.startswith(_TRACEBACK):
            if not chained or not chains:
                chains.append([])
            inside, chained = True, False
        elif line.startswith(_CHAINED):
            chained = True
        elif inside and (found := _EXCEPTION.match(line)):
            inside = False
            kind = found["kind"].rpartition(".")[2]
            text = f"{kind}: {found['what']}" if found["what"] else kind
            if kind not in ("SystemExit", "KeyboardInterrupt") and not _EMPTY.search(text):
                chains[-1].append(text)
    return chains


def _in_words(exception: str) -> str:
    if _PORT.search(exception):
        return "its port is in use"
    what = exception.partition(": ")[2] or exception
    if _MEMORY.search(exception):
        return f"not enough memory: {what}"
    # The kind is of use where the words alone are a bare name.
    return exception if exception.startswith(("KeyError", "ImportError")) else what
