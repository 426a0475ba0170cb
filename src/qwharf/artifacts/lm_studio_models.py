"""The models that an LM Studio on this machine has: where they lie, read without waking it.

Layout (LM Studio's documentation, and its own ``lms`` seen running)::

    <home>/settings.json                            downloadsFolder, if it was moved
    <home>/models/<publisher>/<repository>/*.gguf   or a folder of MLX weights
    <home>/hub/models/<publisher>/<name>/           model.yaml: what catalogue models add to that

``<home>`` is what ``~/.lmstudio-home-pointer`` says, else ``~/.cache/lm-studio`` if it exists, else
``~/.lmstudio``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from qwharf.errors import InvalidFile, UnknownModel, UsageError

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def home() -> Path:
    """LM Studio's folder; it need not exist."""
    user = Path.home()
    try:
        pointed = (user / ".lmstudio-home-pointer").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    if pointed and Path(pointed).is_absolute():  # an empty one would mean wherever we are
        return Path(pointed)
    old = user / ".cache" / "lm-studio"
    return old if old.is_dir() else user / ".lmstudio"


def models_folder(at: Path | None = None) -> Path:
    """Where the models of the LM Studio in ``at`` (default: :func:`home`) lie."""
    base = at or home()
    try:
        settings = json.loads((base / "settings.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        settings = None
    named = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    # LM Studio does not expand `~` either, and makes nothing sensible of a relative path.
    if isinstance(named, str) and Path(named).is_absolute():
        return Path(named)
    return base / "models"


def is_part(text: str) -> bool:
    """Whether ``text`` can be a publisher or a repository: LM Studio itself lets ``..`` through."""
    return _PART.fullmatch(text) is not None and not text.endswith(".")


def find(models: Path, text: str) -> Path:
    """The weights called ``publisher/repository[/file.gguf]``: a ``.gguf`` file, or a folder.

    Raises:
        UsageError: that is not such a name.
        UnknownModel: LM Studio has no such model.
        InvalidFile: the repository has several ``.gguf`` files, and none was named.
    """
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(map(is_part, parts)):
        raise UsageError(
            text,
            found="not a name of LM Studio's",
            expected="publisher/repository or publisher/repository/file.gguf",
            hint="see `lms ls`",
        )
    folder = _child(_child(models, parts[0]), parts[1])
    path = _child(folder, parts[2]) if len(parts) == 3 else folder
    if not path.exists():
        known = sorted({p.relative_to(models).as_posix() for p in repositories(models)})
        raise UnknownModel(
            text,
            found=f"no such model in {models}",
            expected=", ".join(known[:8]) or "a model that LM Studio has",
            hint="see `lms ls`",
        )
    if path.is_file():
        return path
    ggufs = sorted(p for p in path.glob("*.gguf") if not p.name.startswith("mmproj"))
    if not ggufs:
        return path
    first = [p for p in ggufs if not re.search(r"-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf$", p.name)]
    if len(first) != 1:
        raise InvalidFile(
            str(path),
            found=f"{len(first)} .gguf files: {', '.join(p.name for p in first[:4])}",
            expected="one model",
            hint=f"name the file: lmstudio:{text}/{first[0].name}" if first else "",
        )
    return first[0]


def _child(folder: Path, name: str) -> Path:
    """``name`` in ``folder``; LM Studio shows keys in lower case, whatever the folder is called."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    return next((p for p in folder.iterdir() if p.name.casefold() == name.casefold()), exact)


def repositories(models: Path) -> Iterator[Path]:
    """Every ``<publisher>/<repository>`` folder."""
    for path in sorted(models.glob("*/*")):
        if path.is_dir() and not path.name.startswith("."):
            yield path


def files(models: Path) -> Iterator[Path]:
    """Every file of weights, companions included."""
    for repository in repositories(models):
        for path in sorted(repository.rglob("*")):
            if path.is_file():
                yield path
