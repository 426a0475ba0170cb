"""What this machine is: processor, memory, accelerators. Parsing apart from probing.

Nothing here raises because of a driver, a library or a permission: what cannot be found out is
``None``.
"""

from __future__ import annotations

import platform
from pathlib import Path

from qwharf.hardware import host
from qwharf.types import Hardware

__all__ = ["detect", "load_spec", "to_toml"]


def detect(path: Path) -> Hardware:
    """Probe this machine, and the free disk space at ``path`` (which need not exist yet)."""
    limits = host.limits()
    total, available = host.memory(limits)
    limit = limits.memory_limit_bytes
    return Hardware(
        system=platform.system() or "unknown",
        cpu=host.cpu(limits),
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_limit_bytes=limit if limit is not None and (not total or limit < total) else None,
        disk_free_bytes=host.disk_free(path),
    )


def load_spec(path: Path) -> Hardware:
    """The machine that a TOML file describes."""
    raise NotImplementedError


def to_toml(machine: Hardware) -> str:
    """``machine`` as a file for :func:`load_spec`."""
    raise NotImplementedError
