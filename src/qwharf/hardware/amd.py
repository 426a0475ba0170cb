"""AMD cards from what the amdgpu driver shows in sysfs; no library is needed.

Source: Linux ``Documentation/gpu/amdgpu/driver-misc.rst`` (``mem_info_vram_total`` and its
neighbours). Only server cards tell their product name there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from qwharf.hardware.cgroup import parse_bytes
from qwharf.types import Gpu

VENDOR = 0x1002
MIN_VRAM_BYTES = 2 << 30
"""A processor's built-in graphics carve less than this out of the host's memory."""
MAX_FILE_BYTES = 4096


def gpu_from(
    index: int,
    *,
    vendor: str | None,
    product: str | None,
    device: str | None,
    vram_total: str | None,
    vram_used: str | None,
    driver: str | None = None,
) -> Gpu | None:
    """A card from the text of its files; ``None`` if it is not AMD's or hardly has memory."""
    if _hex(vendor) != VENDOR:
        return None
    total = parse_bytes(vram_total)
    if total is None or total < MIN_VRAM_BYTES:
        return None
    used = (vram_used or "").strip()
    number = int(used) if used.isascii() and used.isdigit() and len(used) < 20 else None
    code = _hex(device)
    name = re.sub(r"[^\x20-\x7e]+", " ", product or "").strip()
    return Gpu(
        index=index,
        vendor="amd",
        name=name or ("AMD GPU" if code is None else f"AMD GPU {code:04x}"),
        memory_total_bytes=total,
        memory_free_bytes=total - number if number is not None and number <= total else None,
        driver=driver,
    )


def gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The cards below ``root``'s ``/sys/class/drm``, in the driver's order."""
    found: list[Gpu] = []
    driver = (_read(root / "sys/module/amdgpu/version") or "").strip() or None
    for folder in _cards(root / "sys/class/drm"):
        gpu = gpu_from(
            len(found),
            vendor=_read(folder / "vendor"),
            product=_read(folder / "product_name"),
            device=_read(folder / "device"),
            vram_total=_read(folder / "mem_info_vram_total"),
            vram_used=_read(folder / "mem_info_vram_used"),
            driver=driver,
        )
        if gpu is not None:
            found.append(gpu)
    return tuple(found)


def _cards(drm: Path) -> Iterator[Path]:
    names = [p.name for p in drm.iterdir()] if drm.is_dir() else []
    # cardN is a card; cardN-HDMI-A-1 is a plug of it.
    for name in sorted(
        (n for n in names if re.fullmatch(r"card\d{1,4}", n)), key=lambda n: int(n[4:])
    ):
        yield drm / name / "device"


def _hex(text: str | None) -> int | None:
    try:
        return int((text or "").strip(), 16)
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
