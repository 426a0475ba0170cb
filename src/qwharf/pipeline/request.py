"""What is asked of the pipeline, and who watches it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from qwharf.fit import Wishes
from qwharf.types import Check, Hub


class Observer(Protocol):
    """Who watches: steps in words, progress in bytes, checks one by one."""

    def step(self, name: str, text: str) -> None:
        """A step began or ended."""

    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Bytes went by."""

    def check(self, check: Check) -> None:
        """One check of the contract finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked ``up`` for."""

    model: str
    wishes: Wishes
    name: str | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters by the name that requests ask for; ``wishes`` must say that there are any."""
    hub: Hub = "hf"
    only_checks: Collection[str] | None = None
    may_copy: bool = False
    """Whether a service may get a second copy of the weights where no link leads to it."""
