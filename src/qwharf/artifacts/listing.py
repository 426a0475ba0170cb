"""What a repository holds at one revision; and the pin that keeps later pulls at that revision."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts import disk
from qwharf.artifacts.store import Store
from qwharf.artifacts.versioned import read_versioned
from qwharf.codec import encode
from qwharf.errors import NetworkError, UsageError
from qwharf.types import Hub

_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEntry:
    """One file of a listing."""

    path: str
    size_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None
    """git's id of the blob; what Hugging Face tells of files outside LFS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All files of a repository at a revision that cannot move."""

    hub: Hub
    repository: str
    endpoint: str
    requested: str
    """The branch, tag or commit that was asked for."""
    revision: str
    """The commit; on ModelScope, which lists no commits, ``<branch>@<fingerprint>``."""
    files: tuple[RemoteEntry, ...]
    pinned_at: float = 0.0
    version: int = VERSION

    def entry(self, path: str) -> RemoteEntry:
        """The file ``path``, checked to be something that can be verified.

        Raises:
            NetworkError: the hub told no checksum of it.
        """
        found = next(f for f in self.files if f.path == path)
        if found.sha256 is None and found.git_sha1 is None:
            raise NetworkError(
                f"{self.repository}: {path}",
                found=f"no checksum in the listing of {self.endpoint}",
                expected="a sha256 or git id",
                hint="mirrors may leave it out: use the hub itself",
                url=self.endpoint,
                status=200,
            )
        return found


def fingerprint(files: tuple[RemoteEntry, ...]) -> str:
    """A short name of exactly these contents."""
    lines = sorted(f"{f.path}\0{f.size_bytes}\0{f.sha256 or f.git_sha1}\n" for f in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def entry_of(
    path: object, size: object, *, sha256: object = None, git_sha1: object = None
) -> RemoteEntry:
    """A listing's row from outside.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(path, str) or not path:
        raise ValueError(f"a file without a path: {path!r:.60}")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 50:
        raise ValueError(f"{path[:60]}: size {size!r:.40}")
    good = isinstance(sha256, str) and _SHA256.fullmatch(sha256.lower())
    good1 = isinstance(git_sha1, str) and _SHA1.fullmatch(git_sha1.lower())
    return RemoteEntry(
        path=path,
        size_bytes=size,
        sha256=str(sha256).lower() if good else None,
        git_sha1=str(git_sha1).lower() if good1 else None,
    )


def check_repo_id(repo_id: str) -> str:
    """``repo_id`` if it is ``owner/name``.

    Raises:
        UsageError: it is not.
    """
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise UsageError(repo_id, found="not a repository id", expected="owner/name")
    return repo_id


def check_revision(revision: str) -> str:
    """``revision`` if it can be a branch, tag or commit.

    Raises:
        UsageError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/@-]{0,199}", revision) or ".." in revision:
        raise UsageError("--revision", found=revision, expected="a branch, tag or commit")
    return revision


# ------------------------------------------------------------------------------------------ pins


def pin_path(store: Store, hub: Hub, repo_id: str) -> Path:
    """Where the pin of a repository lies."""
    return store.root / "pins" / hub / f"{check_repo_id(repo_id).replace('/', '--')}.json"


def read_pin(store: Store, hub: Hub, repo_id: str) -> Listing | None:
    """The listing that was pinned at the first download.

    Raises:
        InvalidFile: the pin cannot be read.
    """

    def check(found: Listing) -> None:
        if (found.hub, found.repository) != (hub, repo_id):
            raise ValueError(f"{found.hub} {found.repository}")

    return read_versioned(
        pin_path(store, hub, repo_id),
        Listing,
        VERSION,
        what="a pin",
        hint="remove it; the next pull pins anew",
        check=check,
    )


def write_pin(store: Store, listing: Listing) -> None:
    """Keep later pulls at ``listing``.

    Raises:
        StorageError: the disk refuses.
    """
    path = pin_path(store, listing.hub, listing.repository)
    with disk.storage_errors(path), store.lock():
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_json(path, encode(listing))
