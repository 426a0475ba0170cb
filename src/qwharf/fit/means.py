"""What there is to plan with, beside the hardware: found by the caller, so that planning is
arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qwharf import compatibility


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A platform that is installed."""

    version: str | None = None
    gpu: bool = True
    """Whether this installation computes on the machine's GPU, if there is one."""
    build: str | None = None
    """Which of several installations this is, as a deployment must name it; ``None``: the
    platform's own choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Platforms that can be driven, and those of them that are installed."""

    platforms: tuple[str, ...] = field(default_factory=compatibility.names)
    """In the order of preference where all else is equal."""
    installed: Mapping[str, Engine] | None = None
    """``None``: not known, as of another machine; then any of them may be. Asked only for those
    platforms that matter, so it may find out as it is asked.
    """

    def has(self, platform: str) -> bool:
        """Whether the platform can be used at once, as far as is known."""
        return self.installed is None or platform in self.installed

    def engine(self, platform: str) -> Engine:
        """The installation; a usual one where there is none."""
        found = None if self.installed is None else self.installed.get(platform)
        return found or Engine()
