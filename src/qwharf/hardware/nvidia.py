"""NVIDIA cards through NVML, the driver's own management library.

:func:`gpu_from` turns what the library returned into a :class:`Gpu` and is a pure function;
:func:`gpus` asks the library, fact by fact, so that a card which does not answer one question
still answers the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from qwharf.types import Gpu

TRANSFERS_PER_CLOCK = 2
"""Memory is read on both edges of the clock that NVML reports, for GDDR and HBM alike: twice
2,619 MHz x 5,120 bits are the H100's 3.35 TB/s."""
MAX_GPUS = 64


def gpu_from(
    index: int,
    *,
    name: str | bytes | None,
    total_bytes: int | None,
    free_bytes: int | None,
    capability: tuple[int, int] | None,
    driver: str | bytes | None,
    bus_width_bits: int | None,
    memory_clock_mhz: int | None,
) -> Gpu:
    """A card from the raw answers; what makes no sense counts as unknown."""
    total = _positive(total_bytes)
    free = free_bytes if isinstance(free_bytes, int) and free_bytes >= 0 else None
    if total is not None and free is not None and free > total:
        free = None
    return Gpu(
        index=index,
        vendor="nvidia",
        name=_text(name) or "NVIDIA GPU",
        memory_total_bytes=total,
        memory_free_bytes=free,
        compute_capability=_capability(capability),
        driver=_text(driver),
        bandwidth_bytes_per_second=bandwidth(bus_width_bits, memory_clock_mhz),
    )


def bandwidth(bus_width_bits: int | None, memory_clock_mhz: int | None) -> float | None:
    """Peak bytes per second of the card's memory."""
    width, clock = _positive(bus_width_bits), _positive(memory_clock_mhz)
    if width is None or clock is None:
        return None
    return width / 8 * clock * 1e6 * TRANSFERS_PER_CLOCK


def gpus() -> tuple[Gpu, ...]:
    """The cards that the driver shows. Empty without a driver.

    Raises:
        Exception: whatever NVML raises; the caller takes that for "no cards".
    """
    import pynvml

    pynvml.nvmlInit()
    try:
        driver = _ask(pynvml.nvmlSystemGetDriverVersion)
        count = min(int(pynvml.nvmlDeviceGetCount()), MAX_GPUS)
        found = [_ask(partial(_gpu, pynvml, i, driver)) for i in range(count)]
        return tuple(gpu for gpu in found if gpu is not None)
    finally:
        _ask(pynvml.nvmlShutdown)


def _gpu(nvml: Any, index: int, driver: Any) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    return gpu_from(
        index,
        name=_ask(lambda: nvml.nvmlDeviceGetName(handle)),
        total_bytes=getattr(memory, "total", None),
        free_bytes=getattr(memory, "free", None),
        capability=_ask(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        driver=driver,
        bus_width_bits=_ask(lambda: nvml.nvmlDeviceGetMemoryBusWidth(handle)),
        memory_clock_mhz=_ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)),
    )


def _ask(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception:
        return None


def _text(value: str | bytes | None) -> str | None:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        return None
    return re.sub(r"[^\x20-\x7e]+", " ", text).strip() or None


def _positive(value: int | None) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _capability(value: Any) -> tuple[int, int] | None:
    try:
        major, minor = (int(x) for x in value)
    except (TypeError, ValueError):
        return None
    return (major, minor) if 0 < major < 100 and 0 <= minor < 100 else None
