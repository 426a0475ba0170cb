"""Packages pinned to their bytes, and the lock file that pip and uv install them from again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qwharf.errors import InvalidFile

NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
VERSION = r"[A-Za-z0-9][A-Za-z0-9.+!_-]*"
LINE = re.compile(
    rf"(?P<name>{NAME})\s*(?:==\s*(?P<version>{VERSION})|@\s*(?P<url>\S+))\s*(?P<hashes>.*)"
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})(?!\S)")


@dataclass(frozen=True, slots=True)
class Package:
    """One package at one version."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    """sha256 of the files that may be taken; empty: not known."""
    url: str | None = None
    """Where it must come from, when not from an index of the machine's own configuration."""

    def line(self) -> str:
        """As a requirement."""
        pinned = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return " ".join([pinned, *(f"--hash=sha256:{h}" for h in self.hashes)])


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a recipe came to."""

    packages: tuple[Package, ...]
    extra_indexes: tuple[str, ...] = ()
    """Indexes beside the machine's own that were needed."""

    def text(self, head: Sequence[str]) -> str:
        """The lock file: what it is, as comments, then one package a line."""
        lines = [f"# {line}" for line in head]
        lines += [f"--extra-index-url {url}" for url in self.extra_indexes]
        return "\n".join([*lines, *(p.line() for p in self.packages), ""])


def canonical(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without(packages: Iterable[Package], names: Iterable[str]) -> tuple[Package, ...]:
    """``packages`` less those called ``names``, each once, sorted."""
    unwanted = {canonical(n) for n in names}
    kept = {canonical(p.name): p for p in packages if canonical(p.name) not in unwanted}
    return tuple(kept[name] for name in sorted(kept))


def from_pip_report(text: str, *, with_url: bool = False, where: str = "pip") -> list[Package]:
    """The packages of a report of ``pip install --dry-run --report`` (pip's docs, "Installation
    Report", version 1).

    Args:
        text: the report.
        with_url: tie each package to the address where it was found.
        where: what to call the report in an error.

    Raises:
        InvalidFile: it is not such a report.
    """
    try:
        return [_from_item(item, with_url) for item in json.loads(text)["install"]]
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InvalidFile(where, found=repr(e), expected="pip's installation report") from e


def _from_item(item: dict[str, Any], with_url: bool) -> Package:
    download = item["download_info"]
    sha256 = ((download.get("archive_info") or {}).get("hashes") or {}).get("sha256")
    name, version = str(item["metadata"]["name"]), str(item["metadata"]["version"])
    url = str(download["url"])
    return Package(name, version, (sha256,) if sha256 else (), url if with_url else None)


def parse_lock(text: str, where: str = "lock.txt") -> list[Package]:
    """The packages of a lock file, of :meth:`Resolved.text` or of ``uv pip compile``.

    Raises:
        InvalidFile: a line is neither a comment nor a pinned package.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.partition("#")[0].strip() if not re.match(r"\S+ @ ", line) else line.strip()
        if not line or line.startswith("-"):
            continue
        match = LINE.fullmatch(line)
        if match is None or HASH.sub("", match["hashes"]).strip():
            raise InvalidFile(where, found=line[:200], expected="name==version --hash=sha256:…")
        url = match["url"]
        version = match["version"] or _version_in(url)
        found.append(
            Package(match["name"], version, tuple(HASH.findall(match["hashes"])), url or None)
        )
    return found


def _version_in(url: str) -> str:
    """The version in a wheel's file name (PEP 427); empty where there is none."""
    parts = Path(urlsplit(url).path).name.removesuffix(".whl").split("-")
    return parts[1].replace("%2B", "+") if len(parts) >= 5 else ""


def are_hashed(packages: Iterable[Package]) -> bool:
    """Whether the bytes of all are known: only then can pip be told to accept no others."""
    return all(p.hashes for p in packages)


def present(site_packages: Path) -> set[str]:
    """Canonical names of the packages that lie in ``site_packages``."""
    return {
        canonical(p.name.removesuffix(".dist-info").partition("-")[0])
        for p in site_packages.glob("*.dist-info")
    }
