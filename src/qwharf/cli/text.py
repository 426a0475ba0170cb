"""Numbers as people read them."""

from __future__ import annotations

import re
import time

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """``text`` from outside without control characters, which could steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def gib(size_bytes: int | float | None) -> str:
    """Memory, in binary units: ``7.1 GiB``; ``?`` when unknown."""
    if size_bytes is None:
        return "?"
    if abs(size_bytes) >= 2**30:
        return f"{size_bytes / 2**30:,.1f} GiB"
    return f"{size_bytes / 2**20:,.1f} MiB"


def gb(size_bytes: int | float | None) -> str:
    """Files, in decimal units, as hubs and file managers show them: ``5.03 GB``."""
    if size_bytes is None:
        return "?"
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:,.2f} {unit}"
    return f"{size_bytes / 1e3:,.1f} kB"


def tokens(count: int | None) -> str:
    """``32,768``; ``?`` when unknown."""
    return "?" if count is None else f"{count:,}"


def ago(when: float | None, now: float | None = None) -> str:
    """``3 min``, the time since ``when`` (seconds since the epoch)."""
    if when is None:
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - when)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
