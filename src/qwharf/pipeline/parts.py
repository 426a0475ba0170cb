"""Weights that are published in parts, for a platform that takes one file."""

from __future__ import annotations

from pathlib import Path

from qwharf import compatibility
from qwharf.artifacts import merging
from qwharf.artifacts.store import Store
from qwharf.pipeline.request import Observer
from qwharf.types import Artifact, Plan


def whole(artifact: Artifact, plan: Plan, store: Store, observer: Observer) -> Artifact:
    """``artifact`` as the plan's platform takes it: with its parts put together, if need be.

    Raises:
        InvalidFile, StorageError: they cannot be.
    """
    if not _must_merge(artifact, plan):
        return artifact
    title = compatibility.facts(plan.platform).title
    observer.step("merge", f"{len(artifact.files)} parts into one file, as {title} takes it")
    return merging.merge_artifact(store, artifact, progress=observer.progress)


def whole_at(artifact: Artifact, plan: Plan, store: Store) -> Path | None:
    """Where :func:`whole` has the weights; touches nothing. ``None``: they are still to be made."""
    if not _must_merge(artifact, plan):
        return artifact.path
    made = merging.merged_before(store, artifact)
    return None if made is None else made.path


def _must_merge(artifact: Artifact, plan: Plan) -> bool:
    return compatibility.facts(plan.platform).single_file and merging.in_parts(artifact)
