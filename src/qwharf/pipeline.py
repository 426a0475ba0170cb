"""The whole story on one page: plan, get, convert, deploy, verify.

Each step is a function from the nouns before it to the next one. :func:`up` strings them together
and tells an :class:`Observer` what happens; the command line decides how that looks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from qwharf.errors import (
    CopyNeeded,
    EngineError,
    FormatUnavailable,
    UsageError,
    VerificationFailed,
)
from qwharf.fit import Means, Wishes
from qwharf.settings import Settings
from qwharf.types import (
    Artifact,
    Check,
    Deployment,
    DeploymentSpec,
    Format,
    Hardware,
    Hub,
    Launch,
    Model,
    Plan,
    Report,
    Repository,
)

if TYPE_CHECKING:
    from qwharf.daemon.client import DaemonClient
    from qwharf.platforms import ServicePlatform, Step
    from qwharf.quantize.imatrix import Importance
    from qwharf.verify import Reference
    from qwharf.verify.target import ProbeKind

ORIGINAL = Format("safetensors", "bf16")
"""The weights as released, from which every conversion starts."""


class Observer(Protocol):
    """Who watches: steps in words, progress in bytes, checks one by one."""

    def step(self, name: str, text: str) -> None:
        """A step began or ended."""

    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Bytes went by."""

    def check(self, check: Check) -> None:
        """One check of the contract finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked ``up`` for."""

    model: str
    wishes: Wishes
    name: str | None = None
    hub: Hub = "hf"
    only_checks: Collection[str] | None = None
    may_copy: bool = False
    """Whether a service may get a second copy of the weights where no link leads to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the weights of a plan will come from."""

    kind: str
    """``store``, ``disk`` or ``hub``."""
    where: str
    format: Format
    download_bytes: int | None
    repository: Repository | None = None
    artifact: Artifact | None = None
    """What the store has, for ``store``."""

    def converts_to(self, format: Format) -> bool:
        """Whether a conversion stands between this source and ``format``."""
        return self.format != format


# ---------------------------------------------------------------------------------------- plan


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


# ----------------------------------------------------------------------------------------- get


def source(model: Model, format: Format, settings: Settings, hub: Hub = "hf") -> Source:
    """Where the weights will come from: the store, this disk, or the hub. Touches nothing.

    Raises:
        FormatUnavailable: neither the format nor anything convertible to it can be had.
    """
    from qwharf.artifacts.convert import can_convert
    from qwharf.artifacts.store import Store

    if model.path is not None:
        found = model.path_format or format
        _must_convert(model, found, format)
        return Source(kind="disk", where=str(model.path), format=found, download_bytes=0)
    store = Store(settings.store_dir)
    for there in (format, ORIGINAL):  # what is here and can be converted needs no network
        stored = store.find(model.name, there)
        if stored is not None and (there == format or can_convert(there, format)):
            return Source(
                kind="store",
                where=str(stored.path),
                format=there,
                download_bytes=0,
                artifact=stored,
            )
    for wanted in (format, ORIGINAL):
        for repository in model.repositories:
            if repository.format == wanted and hub in repository.hubs:
                _must_convert(model, wanted, format)
                return Source(
                    kind="hub",
                    where=repository.repo_id,
                    format=wanted,
                    download_bytes=_known_bytes(repository),
                    repository=repository,
                )
    raise FormatUnavailable(
        model.name,
        found="no repository on " + hub,
        expected=f"one that holds {format} or bf16 safetensors",
        hint=f"see `qwharf show {model.name}` for what can be had",
    )


def _must_convert(model: Model, found: Format, wanted: Format) -> None:
    from qwharf.artifacts.convert import can_convert, unavailable

    if found != wanted and not can_convert(found, wanted):
        raise unavailable(model.name, found, wanted)


def _known_bytes(repository: Repository) -> int | None:
    sizes = [f.size_bytes for f in repository.files]
    return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None


def obtain(
    model: Model,
    format: Format,
    settings: Settings,
    observer: Observer,
    hub: Hub = "hf",
    *,
    memory_bytes: int | None = None,
    importance: Importance | None = None,
) -> Artifact:
    """Bring ``model`` into the store as ``format``, converting where needed.

    Raises:
        NetworkError, StorageError, InvalidFile, FormatUnavailable: nothing half-done is left
            under a final name, and a second call goes on where this one stopped.
    """
    from qwharf.artifacts import importing, pulling
    from qwharf.artifacts.store import Store

    store = Store(settings.store_dir)
    # What is to be weighed is made here, even where others offer the format.
    origin = source(model, format if importance is None else ORIGINAL, settings, hub)
    if origin.artifact is not None:
        artifact = origin.artifact
        observer.step("get", f"{artifact.format} is in the store already")
    elif origin.kind == "disk":
        imported = importing.import_path(
            store, Path(origin.where), model=model.name, progress=observer.progress
        )
        artifact = imported.artifact
        observer.step("get", f"{origin.where}: {imported.how}")
    else:
        assert origin.repository is not None  # noqa: S101 - kind "hub" always has one
        observer.step("get", f"{origin.repository.repo_id} from {hub}")
        artifact = pulling.pull(
            origin.repository,
            model=model.name,
            hub=hub,
            store=store,
            progress=observer.progress,
        )
    if artifact.format == format and importance is None:
        return artifact
    return convert(
        artifact, format, settings, observer, memory_bytes=memory_bytes, importance=importance
    )


def convert(
    artifact: Artifact,
    target: Format,
    settings: Settings,
    observer: Observer,
    *,
    memory_bytes: int | None = None,
    importance: Importance | None = None,
) -> Artifact:
    """``artifact`` in another format, made once and kept in the store.

    Raises:
        FormatUnavailable, InvalidFile, StorageError: an interrupted conversion is resumed.
    """
    from qwharf.artifacts.converting import convert_artifact, made_before
    from qwharf.artifacts.store import Store

    store = Store(settings.store_dir)
    made = made_before(store, artifact, target, importance)
    if made is not None:
        observer.step("convert", f"{target} was made before")
        return made
    observer.step("convert", f"{artifact.format} to {target}")
    return convert_artifact(
        store,
        artifact,
        target,
        memory_bytes=memory_bytes,
        importance=importance,
        progress=observer.progress,
    )


# -------------------------------------------------------------------------------------- deploy


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of deployments: they stand in URLs, file names and clients' configurations."""


def specify(
    plan: Plan,
    artifact_id: str,
    artifact_path: Path,
    name: str | None,
    engine_version: str | None = None,
) -> DeploymentSpec:
    """What the daemon is asked to run for ``plan``.

    Args:
        plan: how it is to be run.
        artifact_id: the weights in the store.
        artifact_path: and where they lie.
        name: of the deployment; default: made from the model's.
        engine_version: of several installations of the platform; default: its own choice.

    Raises:
        UsageError: ``name`` cannot be one.
    """
    return DeploymentSpec(
        name=checked_name(name or default_name(plan.model)),
        platform=plan.platform,
        model=plan.model.name,
        thinking=plan.model.thinking,
        format=plan.format,
        artifact_id=artifact_id,
        artifact_path=artifact_path,
        architecture=plan.model.architecture,
        context_tokens=plan.context_tokens,
        parallel=plan.parallel,
        kv_cache_type=plan.kv_cache_type,
        threads=plan.threads,
        gpu_layers=plan.gpu_layers,
        cpu_moe_layers=plan.cpu_moe_layers,
        gpus=plan.gpus,
        engine_version=engine_version,
        native_context_tokens=plan.model.native_context_tokens,
        sampling=plan.model.sampling,
        expected_memory_bytes=plan.memory_bytes(),
    )


def checked_name(name: str) -> str:
    """``name``, if a deployment can have it.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            name,
            found="not a name of a deployment",
            expected="letters, digits, `.`, `_` and `-`, at most 64, a letter or digit first",
            hint="give another one with --name",
        )
    return name


def default_name(model: Model) -> str:
    """The deployment's name where the user gives none: ``qwen3-8b`` for ``qwen3:8b``."""
    kept = (c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in model.name.lower())
    return "".join(kept).strip("-._")[:64] or "model"


Actions: TypeAlias = "Launch | tuple[Step, ...]"
"""The command of an engine that is started, or what is done to a service that runs for itself."""


def actions(spec: DeploymentSpec) -> Actions:
    """What ``spec`` leads to, exactly; a command's port is chosen at the real start."""
    from qwharf import platforms

    platform = platforms.get(spec.platform)
    if platforms.is_child(platform):
        return platform.launch(spec, port=0)
    return cast("ServicePlatform", platform).steps(spec)


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

    there = hardware.load_spec(machine) if machine else hardware.detect(settings.data_dir)
    means = survey.means(None if machine else there)
    chosen = plan(request, there, means)
    origin = source(chosen.model, chosen.format, settings, request.hub)
    at = settings.store_dir / "artifacts" / "ID"
    if origin.artifact is not None and not origin.converts_to(chosen.format):
        at = origin.artifact.path
    elif chosen.format.container == "gguf":
        at /= "model.gguf"
    spec = specify(chosen, "", at, request.name, means.engine(chosen.platform).build)
    return Rehearsal(plan=chosen, source=origin, spec=spec, actions=actions(spec))


def require(platform: str) -> None:
    """Refuse a platform that is not here, before anything is fetched for it.

    Raises:
        EngineError: it is not installed; says what to do.
    """
    from qwharf import platforms

    here = platforms.get(platform).availability()
    if not here.installed:
        raise EngineError(
            platform, found=here.reason, expected="it to be installed", hint=here.hint
        )


# -------------------------------------------------------------------------------------- verify


def prove(
    deployment: Deployment,
    client: DaemonClient,
    settings: Settings,
    observer: Observer,
    only: Collection[str] | None = None,
) -> Report:
    """Check a running deployment against the Qwen3 contract and record the report.

    One command at a time: checks read back what the engine did *last*, so two that prove the same
    deployment at once would see each other's requests.
    """
    from qwharf import verify
    from qwharf.artifacts.locks import locked

    spec = deployment.spec
    probe = PROBES.get(spec.endpoint.kind if spec.endpoint else spec.platform)
    target = verify.Target(
        base_url=deployment.base_url,
        served_name=spec.name,
        api_key=settings.api_key,
        model=spec.model,
        thinking=spec.thinking,
        context_tokens=spec.context_tokens,
        sampling=spec.sampling,
        reference=reference(spec, settings),
        probe_url=client.probe_url(spec.name) if probe else None,
        probe=probe or "llama.cpp",
        probe_headers=client.headers(),
    )

    def waiting() -> None:
        observer.step("verify", "another command is proving it: waiting")

    with locked(settings.state_dir / f"verify-{spec.name}.lock", waiting, delete=True):
        report = verify.run(target, on_check=observer.check, only=only)
    report = replace(report, spec=spec, versions={**report.versions, **_versions(deployment)})
    if only is None:
        client.put_report(spec.name, report)
    return report


PROBES: Mapping[str, ProbeKind] = {
    "llama.cpp": "llama.cpp",
    "vllm": "tokenize",
    "sglang": "tokenize",
}
"""Which engines show what they make of a conversation; the others' prompts are counted only."""


def reference(spec: DeploymentSpec, settings: Settings) -> Reference | None:
    """The template and tokenizer that the deployment must obey: those of the *source* checkpoint
    where the weights were converted here, so that a bad conversion cannot vouch for itself.
    ``None``: somebody else's server, and no checkpoint of its model is here.
    """
    from qwharf import verify
    from qwharf.artifacts.store import Store

    store = Store(settings.store_dir)
    if spec.endpoint is not None:
        stored = store.find(spec.model, ORIGINAL)
        path = stored.path if stored else spec.artifact_path
        return verify.Reference.load(path) if path != Path() else None
    artifact = store.get(spec.artifact_id)
    origin = artifact.provenance.get("converted_from") if artifact else None
    original = store.get(origin) if origin else None
    return verify.Reference.load((original or artifact).path if artifact else spec.artifact_path)


def _versions(deployment: Deployment) -> Mapping[str, str]:
    from qwharf import __version__

    return {"qwharf": __version__, "engine": deployment.engine or "unknown"}


# ------------------------------------------------------------------------------------------ up


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
    from qwharf.daemon.client import DaemonClient

    here = hardware.detect(settings.data_dir)
    means = survey.means(here)
    chosen = plan(request, here, means)
    build = means.engine(chosen.platform).build
    if build is None:
        require(chosen.platform)
    checked_name(request.name or default_name(chosen.model))
    observer.step("plan", describe(chosen))
    client = DaemonClient(settings)
    client.ensure_running()  # first: a taken port should be known before gigabytes are fetched
    artifact = obtain(chosen.model, chosen.format, settings, observer, request.hub)
    spec = specify(chosen, artifact.id, artifact.path, request.name, build)
    spec = replace(spec, may_copy=request.may_copy)
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


def refuse_copies(spec: DeploymentSpec) -> None:
    """Find out, before anything is started, whether the weights would lie on the disk twice.

    Raises:
        CopyNeeded: they would, and ``spec`` does not allow it.
    """
    from qwharf import platforms

    platform = platforms.get(spec.platform)
    if spec.may_copy or platforms.is_child(platform):
        return
    steps = cast("ServicePlatform", platform).steps(spec)
    copied = [(step.where, Path(step.content)) for step in steps if step.what == "copy"]
    if not copied:
        return
    size = sum(path.stat().st_size for _, path in copied if path.is_file())
    raise CopyNeeded(
        spec.name,
        found=f"no link leads from the store to {copied[0][0]}",
        expected=f"leave to copy {size / 1e9:.2f} GB",
        hint=f"allow it with `--copy`, or keep {platform.name}'s models and QWHARF_HOME on one "
        "file system",
        copy_bytes=size,
    )


def describe(plan: Plan) -> str:
    """The plan in one line."""
    return (
        f"{plan.model.title} as {plan.format} on {plan.platform}, "
        f"{plan.context_tokens:,} tokens of context, {plan.memory_bytes() / 2**30:.1f} GiB"
    )
