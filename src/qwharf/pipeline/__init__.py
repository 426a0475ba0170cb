"""The whole story on one page: plan, get, convert, deploy, verify.

Each step is a function from the nouns before it to the next one. :func:`up` strings them together
and tells an :class:`Observer` what happens; the command line decides how that looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from qwharf.errors import VerificationFailed
from qwharf.fit import Means
from qwharf.naming import checked_name
from qwharf.pipeline.deploying import (
    Actions,
    actions,
    default_name,
    refuse_copies,
    require,
    specify,
)
from qwharf.pipeline.proving import prove, reference
from qwharf.pipeline.request import Observer, Request
from qwharf.pipeline.weights import Source, convert, obtain, source
from qwharf.settings import Settings
from qwharf.types import Artifact, Deployment, DeploymentSpec, Hardware, Plan, Report

__all__ = [
    "Actions",
    "Observer",
    "Outcome",
    "Rehearsal",
    "Request",
    "Source",
    "actions",
    "convert",
    "default_name",
    "describe",
    "obtain",
    "plan",
    "prove",
    "reference",
    "refuse_copies",
    "rehearse",
    "require",
    "source",
    "specify",
    "up",
]


def plan(request: Request, hardware: Hardware, means: Means) -> Plan:
    """Choose format, platform, context and placement for ``request.model``.

    Raises:
        UnknownModel, DoesNotFit, FormatUnavailable: with what would work instead.
    """
    from qwharf import catalog, fit

    resolved = catalog.resolve(request.model)
    wishes = request.wishes
    if wishes.format is None and resolved.format is not None:
        wishes = replace(wishes, format=resolved.format)
    return fit.choose(resolved.model, hardware, wishes, catalog.models(), means)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What ``up`` achieved."""

    plan: Plan
    artifact: Artifact
    deployment: Deployment
    report: Report


def up(request: Request, settings: Settings, observer: Observer) -> Outcome:
    """Plan, get, convert if needed, deploy, verify.

    Raises:
        QwharfError: any of them, from the step that failed. A failed contract raises
            :class:`VerificationFailed` (facts: the report) and leaves the deployment running, so
            that it can be looked at.
    """
    from qwharf import hardware, survey
    from qwharf.artifacts.store import Store
    from qwharf.daemon.client import DaemonClient
    from qwharf.pipeline import adapters, parts

    here = hardware.detect(settings.data_dir)
    means = survey.means(here)
    chosen = plan(request, here, means)
    build = means.engine(chosen.platform).build
    if build is None:
        require(chosen.platform)
    name = checked_name(request.name or default_name(chosen.model))
    loras = adapters.check(request.adapters, chosen, name)
    observer.step("plan", describe(chosen))
    client = DaemonClient(settings)
    client.ensure_running()  # first: a taken port should be known before gigabytes are fetched
    artifact = obtain(chosen.model, chosen.format, settings, observer, request.hub)
    with Store(settings.store_dir) as store:
        artifact = parts.whole(artifact, chosen, store, observer)
        loras = adapters.place(loras, chosen, store, observer)
    spec = specify(chosen, artifact.id, artifact.path, name, build)
    spec = replace(spec, may_copy=request.may_copy, adapters=loras)
    refuse_copies(spec)
    observer.step("deploy", f"`{spec.name}` on {spec.platform}")
    deployment = client.deploy(spec, on_progress=lambda text: observer.step("deploy", text))
    observer.step("verify", "the Qwen3 contract")
    report = prove(deployment, client, settings, observer, request.only_checks)
    if not report.passed:
        failed = [c.id for c in report.checks if c.status == "fail"]
        raise VerificationFailed(
            spec.name,
            found=f"{len(failed)} of {len(report.checks)} checks failed ({', '.join(failed)})",
            expected="all to pass",
            hint=f"the deployment is left running: `qwharf verify {spec.name}`, "
            f"`qwharf logs {spec.name}`, `qwharf down {spec.name}`",
            report=report,
        )
    return Outcome(plan=chosen, artifact=artifact, deployment=client.get(spec.name), report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What ``up`` would do."""

    plan: Plan
    source: Source
    spec: DeploymentSpec
    actions: Actions


def rehearse(request: Request, settings: Settings, machine: Path | None = None) -> Rehearsal:
    """Every step of :func:`up` in numbers, without touching anything.

    Args:
        request: as for :func:`up`.
        settings: where the store is.
        machine: the TOML file of another machine; default: this one.

    Raises:
        QwharfError: as :func:`up` before it fetches anything, but that the platform may be missing.
    """
    from qwharf import hardware, survey
    from qwharf.artifacts.store import Store
    from qwharf.pipeline import adapters, parts

    there = hardware.load_spec(machine) if machine else hardware.detect(settings.data_dir)
    means = survey.means(None if machine else there)
    chosen = plan(request, there, means)
    origin = source(chosen.model, chosen.format, settings, request.hub)
    store = Store(settings.store_dir)
    at = None
    if origin.artifact is not None and not origin.converts_to(chosen.format):
        at = parts.whole_at(origin.artifact, chosen, store)
    if at is None:
        at = store.artifact_folder("ID")
        at = at / "model.gguf" if chosen.format.container == "gguf" else at
    spec = specify(chosen, "", at, request.name, means.engine(chosen.platform).build)
    loras = adapters.check(request.adapters, chosen, spec.name)
    loras = adapters.placed_at(loras, chosen, store)
    spec = replace(spec, adapters=loras)
    return Rehearsal(plan=chosen, source=origin, spec=spec, actions=actions(spec))


def describe(plan: Plan) -> str:
    """The plan in one line."""
    return (
        f"{plan.model.title} as {plan.format} on {plan.platform}, "
        f"{plan.context_tokens:,} tokens of context, {plan.memory_bytes() / 2**30:.1f} GiB"
    )
