"""Where a running daemon says that it runs: a lock, and a small file with its address.

Both lie in the state folder, so there is one daemon per state folder. The lock is the truth (it is
free when the daemon is dead, however it died); the file only tells the rest.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qwharf.daemon.lock import is_held
from qwharf.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that listens."""

    pid: int
    url: str
    """``http://127.0.0.1:8383``: where clients on this machine reach it."""
    version: str
    started_at: float


def lock_path(settings: Settings) -> Path:
    """Held by the daemon while it lives."""
    return settings.state_dir / "daemon.lock"


def start_lock_path(settings: Settings) -> Path:
    """Held by a command while it starts a daemon."""
    return settings.state_dir / "start.lock"


def run_path(settings: Settings) -> Path:
    """The file that :func:`write` makes."""
    return settings.state_dir / "daemon.json"


def write(settings: Settings, running: Running) -> None:
    """Announce that the daemon listens.

    Raises:
        OSError: the file cannot be written.
    """
    path = run_path(settings)
    fresh = path.with_name(path.name + ".partial")
    fresh.write_text(json.dumps(asdict(running)), "utf-8")
    fresh.replace(path)


def remove(settings: Settings) -> None:
    """Take the announcement back; before the lock is released."""
    with contextlib.suppress(OSError):
        run_path(settings).unlink(missing_ok=True)


def read(settings: Settings) -> Running | None:
    """The announcement, whether its daemon lives or not; ``None``: none that can be read."""
    try:
        return Running(**json.loads(run_path(settings).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(settings: Settings) -> bool:
    """Whether a daemon lives, be it on its way up or down."""
    return is_held(lock_path(settings))


def find(settings: Settings) -> Running | None:
    """The daemon that lives and listens."""
    return read(settings) if is_alive(settings) else None
