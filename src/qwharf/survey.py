"""What there is to plan with on this machine: the platforms that are driven, and which of them are
installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from qwharf import compatibility, engines, platforms
from qwharf.errors import QwharfError
from qwharf.fit import Engine, Means

ON_PROCESSORS = frozenset({"cpu", "native", "parser"})
"""Variants of engines that leave a GPU alone."""


def means(*, here: bool) -> Means:
    """The platforms that are driven and planned for.

    Args:
        here: whether the plan is for this machine; of another one it is not known what is
            installed.
    """
    known = compatibility.names()  # others, such as somebody else's endpoint, are not planned for
    driven = tuple(name for name in platforms.names() if name in known)
    return Means(platforms=driven, installed=Installed(driven) if here else None)


class Installed(Mapping[str, Engine]):
    """The platforms that are installed here; each is asked once, when it is first asked for.

    Args:
        names: to choose from.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._found: dict[str, Engine | None] = {}

    def __getitem__(self, name: str) -> Engine:
        if name not in self._found:
            self._found[name] = _ask(name) if name in self._names else None
        found = self._found[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _ask(name: str) -> Engine | None:
    # Of engines in environments of their own, looking for those is quicker than asking the driver.
    own = engines.find(name) if name in engines.ENGINES else None
    if own is None and name in engines.ENGINES and name != "llama.cpp":
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
