"""An artifact in another format: converted once, resumed where it stopped, kept in the store."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qwharf import __version__
from qwharf.artifacts import locks
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.store import Store
from qwharf.errors import InvalidFile
from qwharf.types import Artifact, Format

if TYPE_CHECKING:
    from qwharf.quantize.imatrix import Importance


class Calibrator(Protocol):
    """Rounds a model's layers with care; of :mod:`qwharf.calibration`, which is above this."""

    def digest(self) -> str:
        """Identifies what the numbers depend on, beside the weights."""

    def facts(self) -> Mapping[str, str]:
        """What to remember of it."""

    def run(self, folder: Path, step: Callable[[int, int], None]) -> None:
        """Make ``folder``, for :func:`qwharf.artifacts.convert.convert`; it appears when whole."""


def convert_artifact(
    store: Store,
    artifact: Artifact,
    target: Format,
    *,
    memory_bytes: int | None = None,
    importance: Importance | None = None,
    calibrator: Calibrator | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Convert ``artifact`` to ``target`` and keep the result.

    The unfinished file lies under a name that depends only on source, target, ``importance`` and
    ``calibrator``, so the next call goes on where a killed one stopped (a calibration begins anew).
    Two calls at once do the work once.

    Raises:
        FormatUnavailable: there is no such conversion.
        ChecksumMismatch: the source was changed in the store.
        InvalidFile, StorageError: from the conversion.
        EngineError: from the calibration.
    """
    from qwharf.artifacts.convert import can_convert, convert, unavailable

    weighted = importance is not None
    if not can_convert(artifact.format, target, weighted=weighted):
        raise unavailable(artifact.model, artifact.format, target, weighted=weighted)
    origin = _origin(artifact, importance, calibrator)
    key = "-".join([artifact.id[:32], target.container, target.quantization])
    for what in ("importance", "calibration"):
        key += f"-{origin[what][:16]}" if what in origin else ""
    work = store.folder("work")
    layers = work / f"{key}.calibrated"

    def waiting() -> None:
        if progress is not None:
            progress(f"another command converts to {target}: waiting", 0, None)

    def step(done: int, total: int, _: str) -> None:
        if progress is not None:
            progress(f"convert to {target}", done, total)

    def calibrating(done: int, total: int) -> None:
        if progress is not None:
            progress("calibrate", done, total)

    with locks.locked(work / f"{key}.lock", waiting, delete=True):
        made = store.find(artifact.model, target, origin=origin)
        if made is not None:
            return made
        store.check(artifact)
        title = artifact.provenance.get("repository", artifact.model).rpartition("/")[2]
        out = work / key
        known: Mapping[str, str] = {}
        if not out.exists():  # whole by its name; else left by a kill just before the end
            with _calibrated(calibrator, layers, calibrating) as calibrated:
                known = convert(
                    artifact.path,
                    target,
                    out,
                    progress=step,
                    memory_bytes=memory_bytes,
                    importance=importance,
                    calibrated=calibrated,
                    digest=True,
                    name=title,
                ).sha256
        about = _provenance(artifact) | origin
        if calibrator is not None:
            about |= calibrator.facts()
        if out.is_dir():
            made = _keep_folder(store, artifact.model, target, out, about, known, progress)
            shutil.rmtree(out)
            shutil.rmtree(layers, ignore_errors=True)
            return made
        name = f"{_file_stem(title)}-{target.quantization.upper()}.gguf"
        counter = _counter(progress, out.stat().st_size)
        ref = store.put_file(out, "move", known_sha256=known.get(out.name), step=counter)
        return store.add(artifact.model, target, {name: ref}, about, name)


@contextlib.contextmanager
def _calibrated(
    calibrator: Calibrator | None, folder: Path, step: Callable[[int, int], None]
) -> Iterator[Path | None]:
    """What ``calibrator`` makes, unless it is there; thrown away where it proves to be no good."""
    if calibrator is None:
        yield None
        return
    if not folder.exists():
        calibrator.run(folder, step)
    try:
        yield folder
    except InvalidFile:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def made_before(
    store: Store,
    artifact: Artifact,
    target: Format,
    importance: Importance | None = None,
    calibrator: Calibrator | None = None,
) -> Artifact | None:
    """What an earlier :func:`convert_artifact` of the same has left in the store."""
    return store.find(artifact.model, target, origin=_origin(artifact, importance, calibrator))


def _origin(
    artifact: Artifact, importance: Importance | None, calibrator: Calibrator | None
) -> dict[str, str]:
    """What of the provenance tells one conversion from another."""
    made = {"converted_from": artifact.id}
    if importance is not None:
        made["importance"] = importance.digest()
    if calibrator is not None:
        made["calibration"] = calibrator.digest()
    return made


def _keep_folder(
    store: Store,
    model: str,
    target: Format,
    folder: Path,
    about: dict[str, str],
    known: Mapping[str, str],
    progress: Progress | None,
) -> Artifact:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    step = _counter(progress, sum(path.stat().st_size for path in files))
    for path in files:
        path.chmod(0o444)  # as the store keeps what is its own
    refs = {
        path.name: store.put_file(path, "link", known_sha256=known.get(path.name), step=step)
        for path in files
    }
    return store.add(model, target, refs, about, None)


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("checksum", done, total)

    return step


def _provenance(artifact: Artifact) -> dict[str, str]:
    versions = {"qwharf": __version__, "xllamacpp": _version("xllamacpp")}
    kept = ("repository", "revision", "hub")
    return {
        "source": f"converted from {artifact.format}",
        "tool": ", ".join(f"{name} {version}" for name, version in versions.items()),
        **{f"origin_{k}": artifact.provenance[k] for k in kept if k in artifact.provenance},
    }


def _version(distribution: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _file_stem(model: str) -> str:
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in model)
    return kept.strip("-.")[:100] or "model"
