"""What is in a file or folder of weights, read from its headers alone.

:func:`inspect` takes a GGUF file (all its parts are found), a checkpoint's or an MLX folder, an
adapter, or a single ``.safetensors``. What is unusual is not an error here but an oddity, listed
with what follows from it; only what cannot be read at all raises.
"""

from __future__ import annotations

from pathlib import Path

from qwharf.errors import InvalidFile
from qwharf.inspection.report import Inspection
from qwharf.inspection.texts import clean, mapped

__all__ = ["Inspection", "inspect"]


def inspect(path: Path, name: str | None = None) -> Inspection:
    """Look at ``path``.

    Args:
        path: a file or folder.
        name: what to call it; ``None``: by its metadata or its own name.

    Raises:
        InvalidFile: it is none of these, or damaged.
        StorageError: a file may not be read.
    """
    return mapped(_inspect(path, name), clean)


def _inspect(path: Path, name: str | None) -> Inspection:
    if path.is_dir():
        from qwharf.inspection.folder import inspect_folder

        inside = _only_gguf(path)
        if inside is None:
            return inspect_folder(path, name)
        path = inside
    if path.suffix.lower() == ".safetensors":
        from qwharf.inspection.folder import inspect_safetensors

        return inspect_safetensors(path, name)
    from qwharf.inspection.gguf_file import inspect_gguf

    return inspect_gguf(path, name)


def _only_gguf(folder: Path) -> Path | None:
    """The GGUF of a folder that holds nothing else; ``None``: a folder of another kind."""
    from qwharf.formats.gguf import split_parts
    from qwharf.formats.opening import is_file

    found = sorted(p for p in folder.iterdir() if p.name.lower().endswith(".gguf"))
    if not found or is_file(folder / "config.json"):
        return None
    if len(found) > 1 and set(split_parts(found[0])) != set(found):
        names = ", ".join(p.name for p in found[:5])
        raise InvalidFile(
            str(folder),
            found=f"{len(found)} GGUF files: {names}",
            expected="one model",
            hint=f"name one: {found[0]}",
        )
    return found[0]
