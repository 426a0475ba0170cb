"""Where the weights lie that an argument means: a path, an artifact's id, or a model's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qwharf.errors import UnknownModel, UsageError
from qwharf.types import Artifact, Format


@dataclass(frozen=True, slots=True)
class Weights:
    """A place on disk, and what the store calls it."""

    path: Path
    name: str | None = None
    format: Format | None = None


def weights_at(text: str) -> Weights:
    """The weights that ``text`` means.

    Args:
        text: a path, the id of an artifact or its beginning (six digits or more), or a model's
            name, with its format where the store has several (``qwen3:8b-q4_k_m``, ``pocket``).

    Raises:
        UnknownModel: nothing of that name is on this disk.
        UsageError: the store has several that it may mean.
    """
    from qwharf import settings
    from qwharf.artifacts.store import Store

    path = Path(text).expanduser()
    if path.exists() or _is_path(text):
        if not path.exists():
            raise UnknownModel(
                text,
                found="no such file or folder",
                expected="a .gguf or .safetensors file, or a folder of weights",
                hint="check the path",
            )
        return Weights(path)
    store = Store(settings.load().store_dir)
    if len(text) >= 6 and (artifact := store.get(text)) is not None:
        return _of(artifact)
    return _by_name(text, store.artifacts())


def _is_path(text: str) -> bool:
    return text.startswith(("./", "../", "/", "~")) or text.endswith((".gguf", ".safetensors"))


def _of(artifact: Artifact) -> Weights:
    return Weights(artifact.path, artifact.model, artifact.format)


def _by_name(text: str, artifacts: tuple[Artifact, ...]) -> Weights:
    from qwharf import catalog

    own = [a for a in artifacts if a.model == text]
    try:
        found = catalog.resolve(text)
    except UnknownModel:
        if own:  # the user's own, by the name it was imported under
            return _only(text, own)
        raise
    model, format = found.model, found.format
    if model.path is not None and format in (None, model.path_format):
        return Weights(model.path, model.name, model.path_format)
    stored = [a for a in artifacts if a.model == model.name and format in (None, a.format)]
    if stored:
        return _only(text, stored)
    wanted = f" --format {format}" if format else ""
    raise UnknownModel(
        text,
        found="no weights of that model on this disk",
        expected="a path, or a model that the store has",
        hint=f"`qwharf pull {model.name}{wanted}` gets them; `qwharf store ls` lists the store",
    )


def _only(text: str, artifacts: list[Artifact]) -> Weights:
    if len(artifacts) == 1:
        return _of(artifacts[0])
    listed = ", ".join(f"{a.id[:12]} ({a.format})" for a in artifacts[:8])
    raise UsageError(
        text,
        found=f"{len(artifacts)} artifacts: {listed}",
        expected="one of them",
        hint=f"name it by its id: {artifacts[0].id[:12]}",
    )
