"""The store's small JSON files, each of which says what version of its form it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from qwharf.codec import decode
from qwharf.errors import InvalidFile


class Versioned(Protocol):
    """What is read: a frozen dataclass with the version of its form."""

    @property
    def version(self) -> int:
        """The version that the file was written with."""
        ...


T = TypeVar("T", bound=Versioned)


def read_versioned(
    path: Path,
    kind: type[T],
    version: int,
    *,
    what: str,
    hint: str,
    check: Callable[[T], None] = lambda found: None,
) -> T | None:
    """What ``path`` holds; ``None``: there is no such file.

    Args:
        path: of the file.
        kind: what it must hold.
        version: the only one that is understood.
        what: it is, for the error.
        hint: what to do about one that cannot be understood.
        check: raises ``ValueError`` where the parts contradict each other.

    Raises:
        InvalidFile: it cannot be understood.
        OSError: it cannot be read.
    """
    try:
        found = decode(kind, json.loads(path.read_bytes()))
        if found.version != version:
            raise ValueError(f"version {found.version}")
        check(found)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as e:
        raise InvalidFile(
            str(path), found=str(e), expected=f"{what} of version {version}", hint=hint
        ) from e
    return found
