"""Engines in Python environments of their own: found by :mod:`qwharf.engines`, described here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qwharf import engines
from qwharf.engines import Installed
from qwharf.errors import FormatUnavailable
from qwharf.platforms.base import Availability
from qwharf.types import DeploymentSpec, Sampling

Version = tuple[int, ...]

OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""For an engine that finds all it needs in one folder: no look at the Hub, no telemetry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine, whichever versions of it are installed."""

    name: str
    """As :mod:`qwharf.engines` and the platforms call it."""
    package: str
    """As its makers and package indexes do."""
    least: str
    """The oldest version that is driven."""
    latest: str
    """What a command is written for where none is installed."""

    def find(self, version: str | None = None) -> Installed | None:
        """The installation to use."""
        return engines.find(self.name, version)

    def text(self) -> str:
        """Name and version: ``vllm 0.32.0``."""
        found = self.find()
        return f"{self.package} {found.version if found else 'not installed'}"

    def availability(self, version: str | None = None) -> Availability:
        """Whether there is one that can be used, and if not, why."""
        found = self.find(version)
        wanted = self.name if version is None else f"{self.name}=={version}"
        install = f"`qwharf engine install {wanted}`"
        if found is None:
            reason = f"{self.package} {version or ''}".rstrip() + " is not installed"
            return Availability(
                installed=False, version=None, where=None, reason=reason, hint=install
            )
        reason, hint = "", ""
        if found.problems:
            reason, hint = found.problems[0], f"`qwharf engine doctor`, or {install}"
        elif numbers(found.version) < numbers(self.least):
            reason = f"{self.package} {found.version} is too old: {self.least} or newer is driven"
            hint = f"`qwharf engine install {self.name}`"
        elif found.variant == "parser":
            reason = f"{self.package} {found.version} is here to check command lines, not to run"
            hint = install
        return Availability(
            installed=not reason,
            version=found.version,
            where=str(found.folder),
            reason=reason,
            hint=hint,
        )

    def require(self, spec: DeploymentSpec) -> Installed:
        """The installation that serves ``spec``.

        Raises:
            FormatUnavailable: there is none that can.
        """
        here = self.availability(spec.engine_version)
        found = self.find(spec.engine_version)
        if found is None or not here.installed:
            raise FormatUnavailable(
                spec.name,
                found=here.reason,
                expected="the engine of this platform",
                hint=here.hint,
            )
        return found

    def version(self, spec: DeploymentSpec) -> Version:
        """Which version's options to use."""
        if spec.engine_version is not None:
            return numbers(spec.engine_version)
        found = self.find()
        return numbers(found.version if found else self.latest)

    def python(self, spec: DeploymentSpec) -> str:
        """Its interpreter; ``python3`` where it is not installed."""
        found = self.find(spec.engine_version)
        return str(found.python) if found else "python3"

    def command(self, spec: DeploymentSpec, name: str) -> str:
        """Its program ``name``; the bare name where it is not installed."""
        found = self.find(spec.engine_version)
        return str(found.command(name)) if found else name


def numbers(version: str) -> Version:
    """The leading numbers of a version, for comparing: ``0.4.6.post1`` is (0, 4, 6)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def bare_sampling(spec: DeploymentSpec) -> Sampling | None:
    """Qwen3's values for a request that says nothing: thinking is on where it can be."""
    return spec.sampling.get("non-thinking" if spec.thinking == "instruct" else "thinking")
