"""The Qwen3 contract: does a running deployment behave like the checkpoint it was made from?

:data:`CHECKS` is the ordered table of all checks; :func:`run` runs them against a
:class:`Target` over HTTP and returns a :class:`~qwharf.types.Report`. Nothing here knows which
engine answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from qwharf.errors import UsageError
from qwharf.types import Check, Report
from qwharf.verify import models
from qwharf.verify.contract import CheckFunction
from qwharf.verify.probe import Probe
from qwharf.verify.target import Reference, Target

__all__ = ["CHECKS", "CheckFunction", "Reference", "Target", "run"]

CHECKS: tuple[CheckFunction, ...] = (
    models.models_listed,
    models.unknown_model,
    models.malformed_request,
)
"""Every check, in the order in which they run."""


def run(
    target: Target,
    *,
    on_check: Callable[[Check], None] | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Check ``target`` against the contract, one check after the other.

    A check that does not apply (another kind of model, no reference) is reported as skipped, with
    the reason. ``only`` names the checks to run.

    Raises:
        UsageError: ``only`` names an unknown check, or several models are served and none named.
        NetworkError: nothing answers at ``target.base_url``.
    """
    known = {c.id for c in CHECKS}
    unknown = sorted(set(only or ()) - known)
    if unknown:
        raise UsageError(
            ", ".join(unknown),
            expected="ids of checks",
            hint="see them with `qwharf verify --list`",
            suggestions=sorted(known),
        )
    done: list[Check] = []
    with Probe(target) as probe:
        probe.settle()
        for function in CHECKS:
            if only and function.id not in only:
                continue
            result = function(probe)
            done.append(result)
            if on_check is not None:
                on_check(result)
        name = probe.label
    return Report(
        deployment=name,
        base_url=target.base_url,
        model=target.model or name,
        thinking=target.thinking,
        checks=tuple(done),
        created_at=time.time(),
    )
