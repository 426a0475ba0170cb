"""What ``/proc/cpuinfo`` and its relatives say about the processor. Pure functions on text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SAME_INSTRUCTIONS = {"asimd": "neon", "advsimd": "neon"}
"""Names of one thing: 64-bit Arm Linux calls NEON asimd."""

_ARM_VENDORS = {
    0x41: "Arm",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x50: "Ampere (APM)",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}
"""Implementer codes of the Main ID Register (Arm Architecture Reference Manual, MIDR_EL1)."""
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse N1",
    (0x41, 0xD40): "Neoverse V1",
    (0x41, 0xD49): "Neoverse N2",
    (0x41, 0xD4F): "Neoverse V2",
}
"""The part numbers met most often: small boards and cloud servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuInfo:
    """The processor as its text describes it; ``None`` and empty where that is silent."""

    name: str | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None
    instruction_sets: frozenset[str] = frozenset()


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read ``/proc/cpuinfo`` of x86 or Arm.

    Physical cores are told only where the text does (x86): distinct pairs of socket and core.
    Instruction sets are those that every listed core has, since a thread may run on any.
    """
    name: str | None = None
    model: str | None = None
    cores: set[tuple[str, str]] = set()
    logical = 0
    instructions: frozenset[str] | None = None
    for entry in _processors(text):
        if "processor" in entry:
            logical += 1
        name = name or entry.get("model name") or _arm_name(entry)
        model = model or entry.get("hardware") or entry.get("model") or entry.get("cpu model")
        if "core id" in entry:
            cores.add((entry.get("physical id", "0"), entry["core id"]))
        words = entry.get("flags") or entry.get("features")
        if words is not None:
            found = instruction_sets(words)
            instructions = found if instructions is None else instructions & found
    return CpuInfo(
        # On x86 "model" is a bare number and says nothing.
        name=name or (model if model and not model.isdigit() else None),
        physical_cores=len(cores) or None,
        logical_cores=logical or None,
        instruction_sets=instructions or frozenset(),
    )


def instruction_sets(words: str) -> frozenset[str]:
    """The names in a line of flags, in lower case and under one name each."""
    found = {word.lower() for word in words.split()}
    return frozenset(found | {SAME_INSTRUCTIONS[w] for w in found & SAME_INSTRUCTIONS.keys()})


def _processors(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of the text, keys in lower case; the first of a repeated key counts."""
    entry: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip().lower()
        if not line.strip() or (key == "processor" and "processor" in entry):
            if entry:
                yield entry
            entry = {}
        if colon and key:
            entry.setdefault(key, value.strip())
    if entry:
        yield entry


def _arm_name(entry: dict[str, str]) -> str | None:
    """``Arm Neoverse N1`` from the register codes, which is all that Arm Linux prints."""
    vendor, part = _code(entry.get("cpu implementer")), _code(entry.get("cpu part"))
    if vendor is None or vendor not in _ARM_VENDORS:
        return None
    core = _ARM_CORES.get((vendor, part or 0))
    return (
        f"{_ARM_VENDORS[vendor]} {core or f'part {part:#x}' if part is not None else 'processor'}"
    )


def _code(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 0)
    except ValueError:
        return None
