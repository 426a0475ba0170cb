"""Limits that a container or a service manager sets: cgroups, version 1 and 2.

A group may be limited itself or through any of its parents, so every level counts. Inside a
container the path that ``/proc/self/cgroup`` names often does not exist below ``/sys/fs/cgroup``,
because only the container's own part is mounted there, as the root; then the root counts.
Sources: Linux ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

UNLIMITED_BYTES = 1 << 62
"""Version 1 writes "no limit" as the largest page-aligned number, about 2**63."""
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the groups of a process allow; ``None``: no limit was found."""

    cpus: float | None = None
    memory_limit_bytes: int | None = None
    memory_left_bytes: int | None = None
    """The least that any of the limited groups has left, reclaimable file cache counted as free."""


# ------------------------------------------------------------------------------------------ parse


def parse_groups(text: str) -> dict[str, str]:
    """``/proc/self/cgroup``: controller to path; version 2 is the controller ``""``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            for controller in parts[1].split(","):
                found.setdefault(controller, parts[2])
    return found


def parse_bytes(text: str | None) -> int | None:
    """A number of bytes; ``max`` and version 1's huge number mean no limit, like nonsense."""
    number = _number(text)
    return None if number is None or not 0 < number < UNLIMITED_BYTES else number


def parse_cpu_max(text: str | None) -> float | None:
    """Version 2's ``cpu.max``, ``QUOTA PERIOD``, in cores."""
    words = (text or "").split()
    return _ratio(words[0] if words else None, words[1] if len(words) > 1 else "100000")


def parse_cfs(quota: str | None, period: str | None) -> float | None:
    """Version 1's ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``, in cores."""
    return _ratio(quota, period)


def parse_stat(text: str | None) -> Mapping[str, int]:
    """``memory.stat``: name to number; what is not of that shape is left out."""
    found: dict[str, int] = {}
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        number = _number(value)
        if number is not None:
            found[name] = number
    return found


def _ratio(quota: str | None, period: str | None) -> float | None:
    a, b = _number(quota), _number(period)
    return a / b if a is not None and b is not None and a > 0 and b > 0 else None


def _number(text: str | None) -> int | None:
    words = (text or "").strip()
    plain = words.isascii() and words.isdigit() and len(words) < 20
    return int(words) if plain else None


# ------------------------------------------------------------------------------------------ probe


def read_limits(root: Path = Path("/")) -> Limits:
    """The limits of this process, from the pseudo files below ``root``. Never raises."""
    groups = parse_groups(_read(root / "proc/self/cgroup") or "")
    mount = root / "sys/fs/cgroup"
    cpus: list[float | None] = []
    limits: list[int | None] = []
    left: list[int | None] = []

    def account(limit: int | None, used: str | None, reclaimable: int) -> None:
        limits.append(limit)
        usage = parse_bytes(used)
        if limit is not None and usage is not None:
            left.append(max(0, limit - max(0, usage - reclaimable)))

    unified = mount / "unified" if (mount / "unified").is_dir() else mount
    for folder in _levels(unified, groups.get("", "/")):
        cpus.append(parse_cpu_max(_read(folder / "cpu.max")))
        stat = parse_stat(_read(folder / "memory.stat"))
        account(
            parse_bytes(_read(folder / "memory.max")),
            _read(folder / "memory.current"),
            stat.get("inactive_file", 0),
        )
    for folder in _levels(mount / "cpu", groups.get("cpu", "/")):
        cpus.append(
            parse_cfs(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
        )
    for folder in _levels(mount / "memory", groups.get("memory", "/")):
        stat = parse_stat(_read(folder / "memory.stat"))
        account(
            parse_bytes(_read(folder / "memory.limit_in_bytes")),
            _read(folder / "memory.usage_in_bytes"),
            stat.get("total_inactive_file", 0),
        )
    return Limits(
        cpus=min((c for c in cpus if c is not None), default=None),
        memory_limit_bytes=min((x for x in limits if x is not None), default=None),
        memory_left_bytes=min((x for x in left if x is not None), default=None),
    )


def _levels(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and all its parents up to the mount, those that exist."""
    inside = PurePosixPath(path.lstrip("/"))
    if ".." in inside.parts:  # a group outside this namespace: only the mount can be read
        inside = PurePosixPath()
    for level in (inside, *inside.parents) if inside.parts else (inside,):
        folder = mount / level
        if folder.is_dir():
            yield folder


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
