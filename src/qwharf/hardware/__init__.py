"""What this machine is: processor, memory, accelerators. Parsing apart from probing.

Nothing here raises because of a driver, a library or a permission: what cannot be found out is
``None``. :func:`load_spec` reads another machine from a file.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from qwharf.hardware import amd, apple, host, nvidia
from qwharf.hardware.spec import load_spec, to_toml
from qwharf.types import Gpu, Hardware

__all__ = ["detect", "load_spec", "to_toml"]


def detect(path: Path) -> Hardware:
    """Probe this machine, and the free disk space at ``path`` (which need not exist yet)."""
    limits = host.limits()
    total, available = host.memory(limits)
    limit = limits.memory_limit_bytes
    found = Hardware(
        system=platform.system() or "unknown",
        cpu=host.cpu(limits),
        memory_total_bytes=total,
        memory_available_bytes=available,
        memory_limit_bytes=limit if limit is not None and (not total or limit < total) else None,
        gpus=discrete_gpus(),
        disk_free_bytes=host.disk_free(path),
    )
    return _on_a_mac(found) if found.system == "Darwin" else found


def discrete_gpus() -> tuple[Gpu, ...]:
    """Cards with memory of their own, NVIDIA's first."""
    cards = (*(host.attempt(nvidia.gpus) or ()), *(host.attempt(amd.gpus) or ()))
    return tuple(replace(card, index=i) for i, card in enumerate(cards))


def _on_a_mac(machine: Hardware) -> Hardware:
    values = host.attempt(apple.sysctl) or {}
    info = apple.cpu_info(values)
    cpu = machine.cpu
    gpu = apple.gpu_from(values, machine.memory_total_bytes, machine.memory_available_bytes)
    return replace(
        machine,
        cpu=replace(
            cpu,
            name=info.name or cpu.name,
            physical_cores=cpu.physical_cores or info.physical_cores,
            logical_cores=cpu.logical_cores or info.logical_cores,
            instruction_sets=info.instruction_sets or cpu.instruction_sets,
        ),
        gpus=machine.gpus if gpu is None else (gpu,),
        unified_memory=gpu is not None,
    )
