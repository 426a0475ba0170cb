"""What is asked of a platform: can you, how would you, and what did you really do?

There are two kinds. A :class:`ChildPlatform` describes a command: the daemon starts the
:class:`~qwharf.types.Launch`, keeps its log and hands the lines back to be understood. A
:class:`ServicePlatform` is a program that runs for itself and manages its own models: it is asked,
over HTTP and through the files of its store, to take one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    all_bytes: int | None = None
    """Everything together, from an engine that says no more than that."""
    context_tokens: int | None = None
    """Of each request."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Bytes of every buffer, by the name that the engine gives it."""

    @classmethod
    def of_gib(cls, weights: float, kv: float, context_tokens: int | None) -> Applied:
        """Of an engine that tells GiB, and nothing but these; 0: it did not say."""
        sizes = {"weights": round(weights * 2**30), "KV cache": round(kv * 2**30)}
        return cls(
            weights_bytes=sizes["weights"] or None,
            kv_bytes=sizes["KV cache"] or None,
            context_tokens=context_tokens,
            lines={label: size for label, size in sizes.items() if size},
        )

    @property
    def total_bytes(self) -> int | None:
        """Weights, KV cache, compute and output buffers, or what is said of them together."""
        if self.weights_bytes is None:
            return self.all_bytes
        rest = (self.kv_bytes, self.compute_bytes, self.output_bytes)
        return self.weights_bytes + sum(size or 0 for size in rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that a service holds ready."""

    url: str
    """The service's root, without a trailing slash or ``/v1``."""
    model: str
    """The name under which the service knows it: what requests must ask for."""
    engine: str
    """Name and version of the service."""
    applied: Applied = field(default_factory=Applied)
    """Read back from the service, never what was asked."""
    pid: int | None = None
    """Of the service, where it runs on this machine and is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done to a service: for people, for ``--dry-run`` and for golden files."""

    what: str
    """``link``, ``copy``, ``write``, ``start``, ``request``."""
    where: str
    """A path, a command, or a method and URL."""
    content: Any = None
    """The file's or request's JSON; for a link or copy: the path that it leads to."""


Tell = Callable[[str], None]
"""Takes a short phrase about what is going on."""


class Platform(Protocol):
    """One way to run a model: what both kinds have. Implementations hold no state."""

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


class ChildPlatform(Platform, Protocol):
    """An engine that the daemon starts, watches and ends."""

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


class ServicePlatform(Platform, Protocol):
    """A program that runs for itself. All methods block, and are called in a thread."""

    def steps(self, spec: DeploymentSpec) -> tuple[Step, ...]:
        """What :meth:`deploy` would do, in order; computed from the arguments, the environment and
        what the service's folders hold. Changes nothing.
        """
        ...

    def deploy(self, spec: DeploymentSpec, tell: Tell) -> Served:
        """Place the files, load the model and read back what was applied. Doing it twice is doing
        it once.

        Raises:
            EngineError: the service is not there, refuses or fails; in its own words.
            StorageError: its store cannot be written.
            Conflict: what stands there under that name is not ours.
        """
        ...

    def status(self, spec: DeploymentSpec) -> Served | None:
        """The model as the service has it now; ``None``: it is not there any more (a model that the
        service has merely put to sleep and loads again by itself *is* there).

        Raises:
            EngineError: the service does not answer.
        """
        ...

    def release(self, spec: DeploymentSpec) -> None:
        """Unload the model and take back what :meth:`deploy` placed, and nothing else; with the
        service gone, what can be done without it. Never fails because something is gone already.

        Raises:
            StorageError: files of ours cannot be removed.
        """
        ...

    def log(self, spec: DeploymentSpec, lines: int) -> Sequence[str]:
        """The last lines of the service's own log; empty where it cannot be read."""
        ...
