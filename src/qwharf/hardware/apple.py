"""Apple silicon: one memory for processor and GPU, described by ``sysctl``."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from qwharf.hardware.cpuinfo import CpuInfo
from qwharf.types import Gpu

KEYS = ("machdep.cpu.brand_string", "hw.physicalcpu", "hw.logicalcpu", "hw.optional", "iogpu")
SYSCTL = "/usr/sbin/sysctl"
TIMEOUT_SECONDS = 5
MIB = 2**20

BANDWIDTH_GB_PER_SECOND = {
    "M1": 68.25, "M1 Pro": 200, "M1 Max": 400, "M1 Ultra": 800,
    "M2": 100, "M2 Pro": 200, "M2 Max": 400, "M2 Ultra": 800,
    "M3": 100, "M3 Pro": 150, "M3 Max": 300, "M3 Ultra": 819,
    "M4": 120, "M4 Pro": 273, "M4 Max": 410,
}  # fmt: skip
"""As in Apple's technical specifications; where a name stands for two, the lesser."""

_FEATURES = {
    "neon": "neon",
    "advsimd": "neon",
    "feat_dotprod": "asimddp",
    "feat_i8mm": "i8mm",
    "feat_bf16": "bf16",
    "feat_fp16": "asimdhp",
    "feat_sme": "sme",
    "avx2_0": "avx2",
    "avx1_0": "avx",
    "avx512f": "avx512f",
    "fma": "fma",
}
"""``hw.optional…`` to the name that Linux gives the same instructions."""


def parse_sysctl(text: str) -> dict[str, str]:
    """``name: value`` lines; others are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon and re.fullmatch(r"[A-Za-z0-9_.%-]+", name):
            found[name] = value.strip()
    return found


def cpu_info(values: Mapping[str, str]) -> CpuInfo:
    """The processor."""
    features = set()
    for name, value in values.items():
        if name.startswith("hw.optional.") and value == "1":
            known = _FEATURES.get(name.rsplit(".", 1)[-1].lower())
            if known is not None:
                features.add(known)
    return CpuInfo(
        name=values.get("machdep.cpu.brand_string") or None,
        physical_cores=_number(values.get("hw.physicalcpu")),
        logical_cores=_number(values.get("hw.logicalcpu")),
        instruction_sets=frozenset(features),
    )


def gpu_from(
    values: Mapping[str, str], total_bytes: int | None, available_bytes: int | None
) -> Gpu | None:
    """The GPU of an Apple chip; ``None`` on a Mac with an Intel processor.

    Its memory is the host's. Where the user set ``iogpu.wired_limit_mb``, that is the most the GPU
    may take; otherwise macOS decides by a rule that it does not tell.
    """
    chip = re.match(
        r"Apple (M\d+(?: (?:Pro|Max|Ultra))?)", values.get("machdep.cpu.brand_string", "")
    )
    if chip is None:
        return None
    wired = _number(values.get("iogpu.wired_limit_mb"))
    limit = wired * MIB if wired else None
    if limit is not None and total_bytes is not None:
        limit = min(limit, total_bytes)
    speed = BANDWIDTH_GB_PER_SECOND.get(chip[1])
    return Gpu(
        index=0,
        vendor="apple",
        name=f"Apple {chip[1]}",
        memory_total_bytes=limit or total_bytes,
        memory_free_bytes=available_bytes if limit is None else _least(limit, available_bytes),
        bandwidth_bytes_per_second=None if speed is None else speed * 1e9,
    )


def sysctl() -> dict[str, str]:
    """The values under :data:`KEYS`; those that this Mac does not have are left out.

    Raises:
        OSError, subprocess.SubprocessError: no ``sysctl``, or it hangs.
    """
    found: dict[str, str] = {}
    for key in KEYS:  # one by one: a single unknown name would fail the whole call
        done = subprocess.run(
            [SYSCTL, key], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        found |= parse_sysctl(done.stdout)
    return found


def _least(limit: int, available: int | None) -> int | None:
    return None if available is None else min(limit, available)


def _number(text: str | None) -> int | None:
    plain = (text or "").strip()
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) < 12 else None
