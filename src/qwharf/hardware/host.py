"""Probe the host: processor, memory, disk. Every probe may fail; then the fact is ``None``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from qwharf.hardware.cgroup import Limits, read_limits
from qwharf.hardware.cpuinfo import CpuInfo, parse_cpuinfo
from qwharf.types import Cpu

T = TypeVar("T")
MAX_CPUINFO_BYTES = 16 << 20
"""A machine of a thousand cores lists each of them."""


def attempt(probe: Callable[[], T]) -> T | None:
    """What ``probe`` finds; ``None`` where it fails, however that may be.

    Drivers and vendor libraries fail in ways of their own, so nothing is told apart here.
    """
    try:
        return probe()
    except Exception:
        return None


def cpu(limits: Limits, root: Path = Path("/")) -> Cpu:
    """The processor, and how much of it this process may use."""
    info = attempt(lambda: _info(root)) or CpuInfo()
    logical = attempt(_logical) or info.logical_cores
    physical = attempt(_physical) or info.physical_cores
    usable = [float(n) for n in (attempt(_affinity), logical) if n]
    if limits.cpus is not None:
        usable.append(limits.cpus)
    return Cpu(
        name=info.name or attempt(platform.processor) or None,
        machine=platform.machine(),
        physical_cores=physical,
        logical_cores=logical,
        usable_cores=min(usable, default=None),
        instruction_sets=info.instruction_sets,
    )


def _info(root: Path) -> CpuInfo:
    with (root / "proc/cpuinfo").open("rb") as file:
        return parse_cpuinfo(file.read(MAX_CPUINFO_BYTES).decode("utf-8", "replace"))


def _logical() -> int | None:
    import psutil

    count = psutil.cpu_count(logical=True)
    return None if count is None else int(count)


def _physical() -> int | None:
    import psutil

    count = psutil.cpu_count(logical=False)
    return None if count is None else int(count)


def _affinity() -> int | None:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    import psutil

    return len(psutil.Process().cpu_affinity() or ())


def memory(limits: Limits) -> tuple[int | None, int | None]:
    """Total and available bytes; the latter is the least of what host and containers leave."""
    found = attempt(_virtual_memory)
    total, free = found or (None, None)
    left = [x for x in (free, limits.memory_left_bytes) if x is not None]
    return total, min(left, default=None)


def _virtual_memory() -> tuple[int, int]:
    import psutil

    state = psutil.virtual_memory()
    return int(state.total), int(state.available)


def disk_free(path: Path) -> int | None:
    """Bytes free for this user at ``path``, or at the nearest parent that exists."""
    import shutil

    absolute = path.absolute()
    for place in (absolute, *absolute.parents):
        if place.exists():
            return attempt(lambda at=place: shutil.disk_usage(at).free)  # type: ignore[misc]
    return None


def limits(root: Path = Path("/")) -> Limits:
    """Container limits; none where there are no cgroups."""
    return attempt(lambda: read_limits(root)) or Limits()
