"""What the gateway needs from whoever owns the engines (the daemon's supervisor)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qwharf.types import Deployment, DeploymentSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One running engine, as a request sees it."""

    spec: DeploymentSpec
    url: str
    """The engine's root URL without a trailing slash or ``/v1``: ``http://127.0.0.1:40123``."""
    model: str
    """The name under which the engine knows the model: ``spec.name`` where we could choose it."""
    generation: int
    """Grows with every start of an engine of this deployment: tells the one that a request broke
    on from the one that has replaced it since."""


class Deployments(Protocol):
    """The deployments of this machine, and the way to a living engine."""

    def all(self) -> Sequence[Deployment]:
        """Every deployment, whatever its state, in the order of their making."""
        ...

    async def ready(self, name: str) -> Upstream:
        """The engine of the deployment ``name``; a starting one is waited for (bounded), a dead
        one restarted.

        Raises:
            UnknownDeployment: there is none of that name.
            EngineError: it cannot be had; ``found`` holds the engine's own words.
        """
        ...

    def lost(self, upstream: Upstream) -> None:
        """The connection to ``upstream`` broke: look after it now. Returns at once; a call about a
        generation that has been replaced does nothing.
        """
        ...
