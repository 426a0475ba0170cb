"""The nouns of compatibility: devices, cells, what a platform's file says, and verdicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from qwharf.types import Format, Gpu, Hardware, KvCacheType

Kind = Literal["cpu", "nvidia", "amd", "apple"]
Shape = Literal["dense", "moe"]
Sure = Literal["seen", "read", "inferred"]
"""seen: run, and the answer looked at; read: in the platform's source, documentation or issues;
inferred: follows from something seen or read, which the source names."""

Capability = tuple[int, int]
MACHINES = {"amd64": "x86_64", "aarch64": "arm64"}
"""Other names of processor families."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What computes, as far as compatibility depends on it; unknown facts are not judged."""

    kind: Kind
    name: str = ""
    system: str = "Linux"
    machine: str | None = None
    """The processor's family."""
    capability: Capability | None = None
    """NVIDIA's compute capability."""
    instructions: frozenset[str] = frozenset()
    """The processor's instruction sets in Linux's names; empty: not known."""

    def __str__(self) -> str:
        return self.name or ("this processor" if self.kind == "cpu" else f"the {self.kind} GPU")


def devices(hardware: Hardware) -> tuple[Device, ...]:
    """What a machine can compute with: one device for each kind of GPU, the processor last."""
    found = {gpu.vendor: device_of(hardware, gpu) for gpu in reversed(hardware.gpus)}
    return (*reversed(found.values()), device_of(hardware, None))


def device_of(hardware: Hardware, gpu: Gpu | None) -> Device:
    """One GPU of a machine, or its processor."""
    machine = hardware.cpu.machine.lower()
    return Device(
        kind="cpu" if gpu is None else gpu.vendor,
        name=(hardware.cpu.name or "") if gpu is None else gpu.name,
        system=hardware.system,
        machine=MACHINES.get(machine, machine),
        capability=None if gpu is None else gpu.compute_capability,
        instructions=hardware.cpu.instruction_sets if gpu is None else frozenset(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fact: these formats on this hardware run, or do not, on one platform."""

    formats: tuple[str, ...]
    """Formats, or patterns such as ``gguf:*``."""
    on: tuple[Kind, ...]
    runs: bool
    why: str
    """Why not, as a sentence without a full stop; or, if it runs, what is worth knowing."""
    sure: Sure
    source: str
    shapes: tuple[Shape, ...] = ("dense", "moe")
    systems: tuple[str, ...] = ()
    """Operating systems; empty: all."""
    machines: tuple[str, ...] = ()
    """Processor families; empty: all."""
    least: Capability | None = None
    """Compute capability from …"""
    below: Capability | None = None
    """… and up to, not included."""
    instructions: tuple[str, ...] = ()
    """Instruction sets that the processor must have."""
    since: str | None = None
    """Platform versions from …"""
    until: str | None = None
    """… and up to, not included."""
    unasked: bool = True
    """Whether it is considered where no format was asked for; there are better ones if not."""
    slice: int = 1
    """What one card holds of a matrix must be a multiple of this, where several share it."""

    def speaks_of(self, format: Format) -> bool:
        """Whether the cell is about ``format``."""
        return any(fnmatchcase(str(format), pattern) for pattern in self.formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Whether requests can ask for LoRA adapters by name."""

    runs: bool
    why: str
    """Why not, as a sentence without a full stop."""
    sure: Sure
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one platform."""

    name: str
    title: str
    aliases: tuple[str, ...]
    stretches: bool
    """Whether YaRN can be switched on for contexts beyond the model's own."""
    single_file: bool
    """Whether GGUF weights must lie in one file, not in parts."""
    versions: Mapping[str, str]
    """Which version the cells speak of, by kind of device, or ``any``."""
    least_version: str | None
    least_why: str
    preference: Mapping[str, int]
    """Among platforms on one kind of device, the lowest is taken by itself."""
    kv_cache_types: Mapping[str, tuple[KvCacheType, ...]]
    """By kind of device, or ``any``; the first is the default."""
    adapters: Adapters
    cells: tuple[Cell, ...] = field(repr=False)

    def version(self, kind: Kind) -> str:
        """The version that the cells for that kind of device speak of."""
        return self.versions.get(kind) or self.versions["any"]

    def kv_types(self, kind: Kind) -> tuple[KvCacheType, ...]:
        """Types of the KV cache on that kind of device."""
        return self.kv_cache_types.get(kind) or self.kv_cache_types.get("any", ())

    def serves(self, kind: Kind) -> bool:
        """Whether anything runs on that kind of device."""
        return any(cell.runs and kind in cell.on for cell in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one combination."""

    runs: bool
    why: str
    """Why not, as a sentence without a full stop; or, if it runs, what is worth knowing."""
    cell: Cell | None
    """The cell that decided; ``None``: nothing is known of the combination."""
    sure: Sure = "inferred"
    """As the cell, but ``inferred`` for a version newer than the cell speaks of."""


def version_key(version: str) -> tuple[int, ...]:
    """Orders versions by their numbers."""
    return tuple(int(n) for n in re.findall(r"\d{1,9}", version.partition("+")[0]))


def shown(capability: Capability) -> str:
    """``8.9``."""
    return f"{capability[0]}.{capability[1]}"
