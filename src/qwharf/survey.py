"""What there is to plan with on this machine: the platforms that are driven, and which of them are
installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from qwharf import compatibility, engines, platforms
from qwharf.errors import QwharfError
from qwharf.fit import Engine, Means
from qwharf.types import Hardware

ON_PROCESSORS = frozenset({"cpu", "native", "parser"})
"""Variants of engines that leave a GPU alone."""
ENVIRONMENTS = frozenset({"vllm", "sglang", "mlx"})
BUILDS: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("cuda", "vulkan"),
    "amd": ("rocm", "vulkan"),
    "apple": (),
    "cpu": ("native",),
}
"""Builds of llama.cpp that are better than the embedded one, by the kind of device."""


def means(here: Hardware | None) -> Means:
    """The platforms that are driven and planned for.

    Args:
        here: this machine; ``None``: the plan is for another one, of which it is not known what
            is installed.
    """
    known = compatibility.names()  # others, such as somebody else's endpoint, are not planned for
    driven = tuple(name for name in platforms.names() if name in known)
    return Means(platforms=driven, installed=Installed(driven, here) if here else None)


class Installed(Mapping[str, Engine]):
    """The platforms that are installed here; each is asked once, when it is first asked for.

    Args:
        names: to choose from.
        hardware: of this machine.
    """

    def __init__(self, names: tuple[str, ...], hardware: Hardware) -> None:
        self._names = names
        self._hardware = hardware
        self._found: dict[str, Engine | None] = {}

    def __getitem__(self, name: str) -> Engine:
        if name not in self._found:
            self._found[name] = _ask(name, self._hardware) if name in self._names else None
        found = self._found[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _ask(name: str, hardware: Hardware) -> Engine | None:
    if name == "llama.cpp":
        build = _build(hardware)
        if build is not None:
            return build
    # Of engines in environments of their own, looking for those is quicker than asking the driver.
    own = engines.find(name) if name in ENVIRONMENTS else None
    if own is None and name in ENVIRONMENTS:
        return None
    try:
        available = platforms.get(name).availability()
    except QwharfError:  # a setting that makes no sense: it says so when the platform is asked for
        return None
    if not available.installed:
        return None
    # PyPI's wheel of the embedded engine computes on the processor, but for macOS.
    variant = own.variant if own else "cpu" if name == "llama.cpp" else "unknown"
    gpu = sys.platform == "darwin" or variant not in ON_PROCESSORS
    return Engine(version=available.version, gpu=gpu)


def _build(hardware: Hardware) -> Engine | None:
    """The build of llama.cpp that was installed for this hardware, if one was."""
    kind = hardware.gpus[0].vendor if hardware.gpus else "cpu"
    usable = [x.version for x in engines.installed("llama.cpp") if not x.problems]
    for name in BUILDS[kind] + BUILDS["cpu"] * (kind != "cpu"):
        if name in usable:
            return Engine(gpu=name not in ON_PROCESSORS, build=name)
    return None
