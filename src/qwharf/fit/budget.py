"""How much memory a plan may take of a machine."""

from __future__ import annotations

from dataclasses import dataclass

from qwharf.types import Gpu, Hardware

GIB, MIB = 2**30, 2**20

HOST_HEADROOM_SHARE = 16
"""A sixteenth of the memory is left for everything else …"""
HOST_HEADROOM_LEAST, HOST_HEADROOM_MOST = 128 * MIB, 4 * GIB
"""… within these bounds."""
GPU_HEADROOM_BYTES = 512 * MIB
"""Left free on each card: the display, other programs, fragmentation. With the allowance for the
card's context this is the GiB that llama.cpp's own fitting keeps."""
APPLE_SMALL_BYTES = 36 * GIB
"""macOS lets the GPU have about two thirds of the memory up to this size, three quarters above;
``sysctl iogpu.wired_limit_mb`` changes it. Apple does not document the rule."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be used now, and what is comfortable; ``None``: not known, so not judged."""

    host_bytes: int | None
    """Of the host's memory, free now less headroom."""
    comfort_bytes: int | None
    """Half of what the machine has, whatever is in use now: so the same machine gets the same
    default tomorrow, and other programs still fit."""
    shared_gpu_bytes: int | None = None
    """Of unified memory, the most that the GPU may have."""


def budget(hardware: Hardware) -> Budget:
    """The budget for the host, unified memory included."""
    total = hardware.memory_total_bytes
    if hardware.memory_limit_bytes is not None:
        total = min(total or hardware.memory_limit_bytes, hardware.memory_limit_bytes)
    available = hardware.memory_available_bytes
    headroom = HOST_HEADROOM_LEAST
    if total is not None:
        headroom = min(max(total // HOST_HEADROOM_SHARE, headroom), HOST_HEADROOM_MOST)
    usable = available if available is not None else total
    shared = None
    if hardware.unified_memory and total is not None:
        shared = total * 2 // 3 if total <= APPLE_SMALL_BYTES else total * 3 // 4
        told = hardware.gpus[0].memory_total_bytes if hardware.gpus else None
        if told is not None and told < total:  # the user set a limit
            shared = told
    return Budget(
        host_bytes=None if usable is None else max(0, usable - headroom),
        comfort_bytes=None if total is None else total // 2,
        shared_gpu_bytes=shared,
    )


def free_bytes(gpu: Gpu) -> int | None:
    """What is free on a card; all of it where the driver does not say."""
    return gpu.memory_free_bytes if gpu.memory_free_bytes is not None else gpu.memory_total_bytes


def cards(hardware: Hardware) -> tuple[Gpu, ...]:
    """The largest set of cards that can work together: of one vendor, with memory known."""
    known = [g for g in hardware.gpus if g.vendor != "apple" and free_bytes(g) is not None]
    groups = [[g for g in known if g.vendor == v] for v in ("nvidia", "amd")]
    return tuple(max(groups, key=lambda group: sum(free_bytes(g) or 0 for g in group)))


def twins(hardware: Hardware) -> tuple[Gpu, ...]:
    """NVIDIA cards of one kind, for tensor parallelism: the kind with most memory together."""
    groups: dict[tuple[str, int | None], list[Gpu]] = {}
    for gpu in hardware.gpus:
        if gpu.vendor == "nvidia" and gpu.memory_total_bytes:
            groups.setdefault((gpu.name, gpu.memory_total_bytes), []).append(gpu)
    together = {k: sum(g.memory_total_bytes or 0 for g in group) for k, group in groups.items()}
    return tuple(groups[max(together, key=lambda k: together[k])]) if groups else ()
