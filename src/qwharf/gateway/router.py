"""From the name in a request to the deployment that answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwharf.gateway.errors import ApiError, bad
from qwharf.gateway.fields import shown
from qwharf.types import Deployment

GONE = frozenset({"stopping", "stopped"})


def served(deployments: Sequence[Deployment]) -> list[Deployment]:
    """Those that take requests: a failed one is tried again, one that was stopped is not."""
    return [d for d in deployments if d.state not in GONE]


def find(name: Any, deployments: Sequence[Deployment]) -> Deployment:
    """The deployment called ``name``, or with an adapter of that name, or the only one that runs
    the model of that name.

    Raises:
        ApiError: 400 without a name, 404 for an unknown one; both list the names there are.
    """
    there = served(deployments)
    if name is None:
        raise bad("model", f"`model` is missing. {_names(there)}", "missing_required_parameter")
    if not isinstance(name, str):
        raise bad("model", f"`model` is {shown(name)}; expected text. {_names(there)}")
    for deployment in there:
        if name in deployment.spec.names:
            return deployment
    running = [d for d in there if d.spec.model.casefold() == name.casefold()]
    if len(running) == 1:
        return running[0]
    why = (
        f"{len(running)} deployments run {shown(name)}; say which"
        if running
        else f"There is no deployment {shown(name, 200)}"
    )
    raise ApiError(404, f"{why}. {_names(there)}", param="model", code="model_not_found")


def _names(deployments: Sequence[Deployment]) -> str:
    if not deployments:
        return "Nothing is deployed; see `qwharf up`."
    return f"Deployed: {', '.join(f'`{n}`' for d in deployments for n in d.spec.names)}."
