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
    from qwharf.artifacts.converting import Calibrator
    from qwharf.calibration import Text
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
    text: Text | None = None,
) -> Artifact:
    """Bring ``model`` into the store as ``format``, converting where needed.

    Args:
        model: what is wanted.
        format: in which format.
        settings: where the store is.
        observer: is told of steps and progress.
        hub: to fetch from.
        memory_bytes: what conversion and calibration may hold.
        importance: an importance matrix to quantise with.
        text: to calibrate on.

    Raises:
        NetworkError, StorageError, InvalidFile, FormatUnavailable: nothing half-done is left
            under a final name, and a second call goes on where this one stopped.
        EngineError, UsageError, DoesNotFit: from the calibration.
    """
    from qwharf.artifacts import importing, pulling
    from qwharf.artifacts.store import Store

    if text is not None:  # before anything is fetched
        from qwharf import calibration

        calibration.method_of(format)
        calibration.environment(settings)
    store = Store(settings.store_dir)
    # What is to be made with care is made here, even where others offer the format.
    careful = importance is not None or text is not None
    origin = source(model, ORIGINAL if careful else format, settings, hub)
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
    if artifact.format == format and not careful:
        return artifact
    calibrator = None
    if text is not None:
        from qwharf import calibration

        calibrator = calibration.plan(
            artifact.path, format, text, settings, memory_bytes, artifact.model
        )
        observer.step(
            "text",
            f"{calibrator.tokens:,} tokens of {text.name}; "
            f"calibrating holds about {calibrator.memory_bytes / 1e9:.1f} GB",
        )
    return convert(
        artifact,
        format,
        settings,
        observer,
        memory_bytes=memory_bytes,
        importance=importance,
        calibrator=calibrator,
    )


def convert(
    artifact: Artifact,
    target: Format,
    settings: Settings,
    observer: Observer,
    *,
    memory_bytes: int | None = None,
    importance: Importance | None = None,
    calibrator: Calibrator | None = None,
) -> Artifact:
    """``artifact`` in another format, made once and kept in the store.

    Raises:
        FormatUnavailable, InvalidFile, StorageError: an interrupted conversion is resumed.
        EngineError: from the calibration.
    """
    from qwharf.artifacts.converting import convert_artifact, made_before
    from qwharf.artifacts.store import Store

    store = Store(settings.store_dir)
    made = made_before(store, artifact, target, importance, calibrator)
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
        calibrator=calibrator,
        progress=observer.progress,
    )
