"""From a model to weights in the store, in the format that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwharf.errors import FormatUnavailable
from qwharf.pipeline.request import Observer
from qwharf.settings import Settings
from qwharf.types import Artifact, Format, Hub, Model, Repository

if TYPE_CHECKING:
    from qwharf.quantize.imatrix import Importance

ORIGINAL = Format("safetensors", "bf16")
"""The weights as released, from which every conversion starts."""


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
