"""A service that holds models, as far as the daemon sees one; it behaves as a test says."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stand_in_platform import wish

from qwharf.errors import EngineError, StorageError
from qwharf.platforms.base import Applied, Availability, Served, Step, Tell
from qwharf.types import DeploymentSpec, Format


@dataclass
class Service:
    name: str = "service"
    version: str = "service 1"
    models: set[str] = field(default_factory=set)
    """What it holds."""
    calls: list[str] = field(default_factory=list)
    down: bool = False
    """It does not answer."""
    refuses: str = ""
    stuck: threading.Event | None = None
    """Every call waits for it."""
    undeletable: bool = False

    def engine(self) -> str:
        return self.version

    def availability(self) -> Availability:
        return Availability(installed=True, version="1", where="here")

    def formats(self) -> tuple[Format, ...]:
        return (Format("gguf", "q8_0"),)

    def check(self, spec: DeploymentSpec) -> None:
        pass

    def steps(self, spec: DeploymentSpec) -> tuple[Step, ...]:
        return ()

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.stuck is not None:
            self.stuck.wait(30)

    def deploy(self, spec: DeploymentSpec, tell: Tell) -> Served:
        self._called("deploy")
        tell("placing the weights")
        if self.down:
            raise EngineError("service", found="no answer", hint="start it")
        if self.refuses:
            raise EngineError("service", found=self.refuses)
        self.models.add(spec.name)
        return self._served(spec)

    def _served(self, spec: DeploymentSpec) -> Served:
        return Served(
            url="http://127.0.0.1:1",
            model=f"ours/{spec.name}",
            engine=self.version,
            applied=Applied(weights_bytes=7, context_tokens=1024),
        )

    def status(self, spec: DeploymentSpec) -> Served | None:
        self._called("status")
        if self.down:
            raise EngineError("service", found="no answer", hint="start it")
        return self._served(spec) if spec.name in self.models else None

    def release(self, spec: DeploymentSpec) -> None:
        self._called("release")
        if self.undeletable:
            raise StorageError("models", found="Permission denied")
        self.models.discard(spec.name)

    def log(self, spec: DeploymentSpec, lines: int) -> Sequence[str]:
        self._called("log")
        return [] if self.down else [f"service line {n}" for n in range(lines)]


def service_wish(folder: Path, name: str = "engine") -> DeploymentSpec:
    return replace(wish(folder, name), platform="service")
