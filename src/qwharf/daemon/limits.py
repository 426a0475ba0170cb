"""How patient the daemon is with its engines, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds and counts; documented in docs/daemon.md."""

    poll_seconds: float = 0.1
    """Between two looks at whether a starting engine is ready."""
    stall_seconds: float = 120.0
    """A starting engine that says nothing, reads nothing, takes no memory and no CPU time."""
    busy_seconds: float = 900.0
    """The same, while it takes CPU time: it may still be working at something, but not forever."""
    stop_seconds: float = 8.0
    """Between asking an engine to stop and killing it."""
    start_attempts: int = 3
    """Failed starts in a row before a restart is given up. The first start ever has one."""
    port_attempts: int = 5
    """Ports tried within one start, should another program take them just before the engine."""
    short_life_seconds: float = 60.0
    """An engine that died sooner after it was ready lived a short life."""
    short_lives: int = 8
    """In a row, before a deployment is given up."""
    backoff_seconds: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
    """Before the first, second, … restart in a row."""
    wait_seconds: float = 600.0
    """How long a request waits for an engine that is starting."""
    health_seconds: float = 10.0
    """For one answer of an engine that a connection broke to; after three it is killed."""
    health_attempts: int = 3
    look_seconds: float = 10.0
    """Between two looks at whether a service still has the model."""
    look_again_seconds: float = 1.0
    """The same, while it does not answer."""
    return_seconds: float = 30.0
    """The same, after it was given up."""
    status_seconds: float = 30.0
    """For a service to say how a model stands, or to give its log."""
    deploy_seconds: float = 1800.0
    """For a service to load a model."""
    release_seconds: float = 60.0
    """For a service to unload it."""

    def backoff(self, nth: int) -> float:
        """Seconds before the ``nth`` restart in a row (from 1)."""
        return self.backoff_seconds[min(max(nth, 1), len(self.backoff_seconds)) - 1]
