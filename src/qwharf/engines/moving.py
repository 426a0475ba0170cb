"""A virtual environment that is moved: its scripts name the old place, so they are written anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from qwharf.engines.installed import SCRIPTS


def rename_in_scripts(environment: Path, old: Path, new: Path) -> int:
    """Make the scripts and settings of ``environment`` speak of ``new`` instead of ``old``.

    What it does beside that a Python environment does not need: the interpreter finds its packages
    from where it is started.

    Args:
        environment: where it lies now.
        old: the folder that its files speak of.
        new: the folder that they shall speak of.

    Returns:
        How many files were changed.
    """
    before, after = os.fsencode(old), os.fsencode(new)
    changed = 0
    for path in _texts(environment):
        data = path.read_bytes()
        if before in data and b"\0" not in data[:512]:
            path.write_bytes(data.replace(before, after))
            changed += 1
    return changed


def _texts(environment: Path) -> Iterator[Path]:
    for path in [environment / "pyvenv.cfg", *(environment / SCRIPTS).iterdir()]:
        if path.is_file() and not path.is_symlink():
            yield path


def size_bytes(folder: Path) -> int:
    """What the files of ``folder`` take, those linked from a cache included."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            total += (Path(place) / name).lstat().st_size
    return total
