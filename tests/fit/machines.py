"""Machines written out by hand."""

from typing import Any

from qwharf.types import Cpu, Gpu, Hardware

GIB = 2**30


def host(
    memory_gib: float, *, free_gib: float | None = None, cores: int = 8, **more: Any
) -> Hardware:
    total = int(memory_gib * GIB)
    return Hardware(
        system=more.pop("system", "Linux"),
        cpu=Cpu(
            name=None,
            machine="x86_64",
            physical_cores=cores,
            logical_cores=2 * cores,
            usable_cores=float(2 * cores),
        ),
        memory_total_bytes=total,
        memory_available_bytes=total if free_gib is None else int(free_gib * GIB),
        **more,
    )


def nvidia(
    count: int, memory_gib: float, capability: tuple[int, int] = (9, 0), **more: Any
) -> tuple[Gpu, ...]:
    size = int(memory_gib * GIB)
    return tuple(
        Gpu(
            index=i,
            vendor="nvidia",
            name=f"card {capability[0]}.{capability[1]}",
            memory_total_bytes=size,
            memory_free_bytes=size,
            compute_capability=capability,
            **more,
        )
        for i in range(count)
    )


def mac(memory_gib: float, free_gib: float | None = None) -> Hardware:
    gpu = Gpu(
        index=0,
        vendor="apple",
        name="Apple M4 Max",
        memory_total_bytes=int(memory_gib * GIB),
        memory_free_bytes=int((free_gib or memory_gib) * GIB),
        bandwidth_bytes_per_second=410e9,
    )
    return host(memory_gib, free_gib=free_gib, system="Darwin", gpus=(gpu,), unified_memory=True)
