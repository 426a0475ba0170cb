"""Look one combination up, and say what works instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, lru_cache

from qwharf.compatibility.cells import (
    Cell,
    Device,
    Facts,
    Kind,
    Shape,
    Verdict,
    shown,
    version_key,
)
from qwharf.compatibility.reader import platforms
from qwharf.types import Format

KIND_NAMES: dict[Kind, str] = {
    "cpu": "processors",
    "nvidia": "NVIDIA GPUs",
    "amd": "AMD GPUs",
    "apple": "Apple silicon",
}
SYSTEM_NAMES = {"Darwin": "macOS"}


def names() -> tuple[str, ...]:
    """Every platform that something is known of."""
    return tuple(platforms())


def facts(platform: str) -> Facts:
    """What is known of ``platform``, which is one of :func:`names`."""
    return platforms()[platform]


@cache
def _spellings() -> dict[str, str]:
    return {alias: f.name for f in platforms().values() for alias in (f.name, *f.aliases)}


def canonical(text: str) -> str | None:
    """The platform that ``text`` names, in any case or by an alias; ``None``: there is none."""
    return _spellings().get(text.strip().lower())


@lru_cache(maxsize=4096)
def lookup(
    platform: str, format: Format, *, moe: bool, device: Device, version: str | None = None
) -> Verdict:
    """Whether ``platform`` runs ``format`` on ``device``.

    Args:
        platform: one of :func:`names`.
        format: of the weights.
        moe: whether the model is a mixture of experts.
        device: what computes; a capability or instruction set that is not known is not judged.
        version: of the platform; default: the one that the cells speak of.
    """
    known = facts(platform)
    kind = device.kind
    spoken_of = known.version(kind)
    has = version or spoken_of
    if known.least_version and version_key(has) < version_key(known.least_version):
        return _no(
            f"{known.title} {has} is too old: {known.least_why}; {known.least_version} or newer"
        )
    cells = [c for c in known.cells if c.speaks_of(format)]
    if not cells:
        return _no(f"{known.title} is not known to run {format}")
    verdict = _narrowed(known, cells, format, "moe" if moe else "dense", device, has)
    if verdict.runs and version_key(has) > version_key(spoken_of):
        return Verdict(runs=True, why=verdict.why, cell=verdict.cell, sure="inferred")
    return verdict


def _no(why: str, cell: Cell | None = None) -> Verdict:
    return Verdict(runs=False, why=why, cell=cell, sure=cell.sure if cell else "inferred")


def _narrowed(
    known: Facts, cells: list[Cell], format: Format, shape: Shape, device: Device, version: str
) -> Verdict:
    """Drop the cells that do not hold here; where none is left, the last condition is why."""
    name = f"{known.title} does not run {format}"
    conditions: tuple[tuple[Callable[[Cell], bool], Callable[[list[Cell]], str]], ...] = (
        (
            lambda c: device.kind in c.on,
            lambda left: (
                f"{known.title} runs {format} on {_listed(left)} only"
                if any(c.runs for c in left)
                else left[0].why
            ),
        ),
        (
            lambda c: not c.systems or device.system in c.systems,
            lambda left: (
                f"{known.title} runs it on "
                + " and ".join(sorted({SYSTEM_NAMES.get(s, s) for c in left for s in c.systems}))
                + " only"
            ),
        ),
        (
            lambda c: not c.machines or device.machine in (None, *c.machines),
            lambda left: f"{name} on {device.machine} processors as far as is known",
        ),
        (
            lambda c: shape in c.shapes,
            lambda left: (
                f"{known.title} runs {format} of "
                + ("dense models only" if shape == "moe" else "mixtures of experts only")
            ),
        ),
        (
            lambda c: _within(c, version),
            lambda left: f"{name} in version {version}",
        ),
        (
            lambda c: device.capability is None or c.least is None or device.capability >= c.least,
            lambda left: (
                f"{format} on {known.title} needs compute capability "
                f"{shown(min(c.least for c in left if c.least))}; {device} has "
                f"{shown(device.capability or (0, 0))}"
            ),
        ),
        (
            lambda c: device.capability is None or c.below is None or device.capability < c.below,
            lambda left: f"{name} on {device}",
        ),
        (
            lambda c: not device.instructions or set(c.instructions) <= device.instructions,
            lambda left: (
                f"{format} on {known.title} needs a processor with "
                + " and ".join(i.upper().replace("_", " ") for i in left[0].instructions)
            ),
        ),
    )
    for holds, reason in conditions:
        left = [c for c in cells if holds(c)]
        if not left:
            return _no(reason(cells), cells[0])
        cells = left
    # More than one is left only where the capability is not known: the newest is hoped for.
    cell = max(cells, key=lambda c: (c.runs, c.least or (0, 0)))
    return Verdict(runs=cell.runs, why=cell.why, cell=cell, sure=cell.sure)


def _listed(cells: Iterable[Cell]) -> str:
    kinds = {kind for c in cells if c.runs for kind in c.on}
    return " and ".join(name for kind, name in KIND_NAMES.items() if kind in kinds)


def _within(cell: Cell, version: str) -> bool:
    has = version_key(version)
    return (cell.since is None or has >= version_key(cell.since)) and (
        cell.until is None or has < version_key(cell.until)
    )


@cache
def slice_of(platform: str, format: Format, kind: Kind) -> int:
    """What one card's part of a matrix must be a multiple of, where several share it."""
    cells = (c for c in facts(platform).cells if c.runs and kind in c.on and c.speaks_of(format))
    return max((c.slice for c in cells), default=1)


# ---------------------------------------------------------------------------------------- instead


def instead(
    format: Format,
    *,
    moe: bool,
    devices: Iterable[Device],
    among: Iterable[str] | None = None,
) -> tuple[str, ...]:
    """The platforms that run ``format`` on one of ``devices``, the preferred first.

    Args:
        format: of the weights.
        moe: whether the model is a mixture of experts.
        devices: what there is.
        among: the platforms to choose from; default: all.
    """
    found: dict[str, tuple[bool, int]] = {}
    for device in devices:
        for name in names() if among is None else among:
            if lookup(name, format, moe=moe, device=device).runs:
                rank = (device.kind == "cpu", facts(name).preference[device.kind])
                found[name] = min(found.get(name, rank), rank)
    return tuple(sorted(found, key=lambda name: found[name]))


def runs_anywhere(platform: str, format: Format, *, moe: bool) -> str | None:
    """On what kinds of hardware ``platform`` runs ``format``, in words; ``None``: on none."""
    shape = "moe" if moe else "dense"
    cells = [
        c for c in facts(platform).cells if c.runs and c.speaks_of(format) and shape in c.shapes
    ]
    return _listed(cells) or None
