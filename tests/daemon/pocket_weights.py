"""The pocket model, converted, as a deployment that the daemon can be asked for."""

from __future__ import annotations

from pathlib import Path

from qwharf import pipeline
from qwharf import settings as settings_module
from qwharf.catalog import resolve
from qwharf.types import DeploymentSpec, Format, Plan

Q8 = Format("gguf", "q8_0")
CONTEXT = 512


class Silent:
    """An observer who does not look."""

    def step(self, name: str, text: str) -> None: ...
    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None: ...
    def check(self, check: object) -> None: ...


def pocket(folder: Path, name: str) -> DeploymentSpec:
    """The deployment ``name`` of the pocket model; its store is in ``folder``."""
    model = resolve("pocket").model
    store = settings_module.load({"QWHARF_HOME": str(folder)})
    artifact = pipeline.obtain(model, Q8, store, Silent())
    plan = Plan(model=model, format=Q8, platform="llama.cpp", context_tokens=CONTEXT, threads=1)
    return pipeline.specify(plan, artifact.id, artifact.path, name)
