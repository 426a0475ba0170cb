"""What the daemon asks of a platform: can you, with what command, and what did you really do?

A platform is a description, not a process: nothing here starts anything. The daemon starts the
:class:`~qwharf.types.Launch`, keeps its log and hands the lines back to be understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qwharf.types import DeploymentSpec, Format, Launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a platform can be used on this machine."""

    installed: bool
    version: str | None
    where: str | None
    """The package or program that was found."""
    reason: str = ""
    """If it is not installed: what is missing."""
    hint: str = ""
    """And what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an engine says that it allocated, read from its own log; ``None``: it did not say."""

    weights_bytes: int | None = None
    kv_bytes: int | None = None
    compute_bytes: int | None = None
    output_bytes: int | None = None
    context_tokens: int | None = None
    """Of each request."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Bytes of every buffer, by the name that the engine gives it."""

    @property
    def total_bytes(self) -> int | None:
        """Weights, KV cache, compute and output buffers; ``None`` without the weights."""
        if self.weights_bytes is None:
            return None
        rest = (self.kv_bytes, self.compute_bytes, self.output_bytes)
        return self.weights_bytes + sum(size or 0 for size in rest)


class Platform(Protocol):
    """One way to run a model. Implementations hold no state."""

    @property
    def name(self) -> str:
        """As users write it: ``llama.cpp``."""
        ...

    def engine(self) -> str:
        """Name and version of the engine, found without loading it."""
        ...

    def availability(self) -> Availability:
        """Whether it can be used here, found without loading it."""
        ...

    def formats(self) -> tuple[Format, ...]:
        """Every format that it can run."""
        ...

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse, before anything is started, what the engine would refuse or die of.

        Raises:
            FormatUnavailable: the platform, or this installation of it, cannot run the format.
            InvalidFile: the weights are damaged, or not those that ``spec`` speaks of.
            UsageError: a parameter makes no sense.
        """
        ...

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """The command that serves ``spec`` on ``port``; computed from the arguments alone."""
        ...

    def phase(self, log_line: str) -> str | None:
        """What the engine begins to do with this line, in a few words, if it begins something."""
        ...

    def applied(self, log: Iterable[str]) -> Applied:
        """What the engine reported to have allocated while it started."""
        ...

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the engine failed to start, or died, in one sentence, in its own words if it had any.

        Args:
            log: its last lines.
            exit_code: as :attr:`subprocess.Popen.returncode` has it: negative for a signal;
                ``None`` while it lives.
        """
        ...
