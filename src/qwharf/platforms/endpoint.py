"""The platform ``endpoint``: a server that somebody else started, and goes on looking after.

What it is, is found out by :mod:`qwharf.platforms.endpoint_kind`. Nothing there is ever changed:
deploying means to look whether the model is there, releasing means to forget it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from qwharf.errors import EngineError, UsageError
from qwharf.platforms import endpoint_kind, wishes
from qwharf.platforms.base import Applied, Availability, Served, Step, Tell
from qwharf.types import DeploymentSpec, Endpoint, Format


class EndpointPlatform:
    """The platform ``endpoint``. Keys are read from the environment at every call."""

    name = "endpoint"

    def engine(self) -> str:
        """Known only when it is asked: every endpoint has another."""
        return "somebody else's server"

    def availability(self) -> Availability:
        """Always: nothing needs to be installed."""
        return Availability(installed=True, version=None, where=None)

    def formats(self) -> tuple[Format, ...]:
        """None that could be deployed: the server has its model already."""
        return ()

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what names no server."""
        wishes.refuse_adapters(spec, "the server has its models and adapters already")
        _endpoint(spec)

    def steps(self, spec: DeploymentSpec) -> tuple[Step, ...]:
        """It is looked at, no more."""
        endpoint = _endpoint(spec)
        return (Step(what="request", where=f"GET {endpoint.url}/v1/models"),)

    def deploy(self, spec: DeploymentSpec, tell: Tell) -> Served:
        """Look whether it is there."""
        endpoint = _endpoint(spec)
        tell(f"asking {endpoint.url}")
        served = self.status(spec)
        if served is None:
            names = ", ".join(m.name for m in _look(endpoint).models) or "none"
            raise EngineError(
                endpoint.url,
                found=f"these models: {names}",
                expected=f"`{endpoint.model}`",
                hint="start it there with that model, or `qwharf add` it anew",
            )
        return served

    def status(self, spec: DeploymentSpec) -> Served | None:
        """The model as its server lists it; ``None``: it lists it no more."""
        endpoint = _endpoint(spec)
        found = _look(endpoint)
        model = found.model(endpoint.model)
        if model is None:
            return None
        return Served(
            url=endpoint.url,
            model=endpoint.model,
            engine=found.engine,
            applied=Applied(context_tokens=model.context_tokens),
        )

    def release(self, spec: DeploymentSpec) -> None:
        """Nothing to take back."""

    def log(self, spec: DeploymentSpec, lines: int) -> Sequence[str]:
        """Its own log is with whoever started it."""
        where = _endpoint(spec).url
        return (f"qwharf did not start the server at {where}: whoever did has its log",)


def _look(endpoint: Endpoint) -> endpoint_kind.Found:
    return endpoint_kind.look(endpoint.url, key_of(endpoint.api_key_variable), endpoint.kind)


def key_of(variable: str | None) -> str | None:
    """The key in the environment.

    Raises:
        EngineError: it is not there.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise EngineError(
            variable,
            found="no such variable in the environment",
            expected="the server's key in it",
            hint=f"set {variable}; for a daemon that runs already: `qwharf down --daemon`, set it, "
            "`qwharf serve`",
        )
    return key


def _endpoint(spec: DeploymentSpec) -> Endpoint:
    if spec.endpoint is None:
        raise UsageError(
            "endpoint",
            found="a deployment without a server",
            expected="the URL of one that runs",
            hint="`qwharf add URL`",
        )
    return spec.endpoint
