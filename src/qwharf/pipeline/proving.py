"""From a running deployment to a report on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qwharf.pipeline.request import Observer
from qwharf.pipeline.weights import ORIGINAL
from qwharf.settings import Settings
from qwharf.types import Deployment, DeploymentSpec, Report

if TYPE_CHECKING:
    from qwharf.daemon.client import DaemonClient
    from qwharf.verify import Reference
    from qwharf.verify.target import ProbeKind


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
    probe = PROBES.get(spec.platform) if spec.endpoint is None else OTHERS.get(spec.endpoint.kind)
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


OTHERS: Mapping[str, ProbeKind] = {
    "llama.cpp": "llama.cpp",
    "vllm": "tokenize",
    "sglang": "tokenize",
}
"""Which servers show what they make of a conversation; the others' prompts are counted only."""
PROBES: Mapping[str, ProbeKind] = {**OTHERS, "mlx": "tokenize"}
"""Which platforms do: mlx-lm's own server has no such route, our child has."""


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
