"""The cache of ``huggingface_hub``: files that are on this disk already.

Layout (its documentation, "Understand caching")::

    <cache>/models--Qwen--Qwen3-8B/
      refs/main                      a commit
      snapshots/<commit>/<file>  ->  ../../blobs/<etag>
      blobs/<etag>                   sha256 for large files, git's sha1 for small ones
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Where the cache lies: ``HF_HUB_CACHE``, else ``HF_HOME/hub``, else ``~/.cache/…``."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def repository_folder(repo_id: str) -> Path:
    """The folder of a model repository; it need not exist."""
    return cache_folder() / ("models--" + repo_id.replace("/", "--"))


def find_blob(repo_id: str, sha256: str) -> Path | None:
    """A complete large file of the repository by its sha256 (as named; not yet verified)."""
    if not _SHA256.fullmatch(sha256):
        return None
    path = repository_folder(repo_id) / "blobs" / sha256
    return path if path.is_file() and not path.is_symlink() else None


def find_snapshot(repo_id: str, revision: str | None = None) -> Path | None:
    """The folder of a cached revision (a commit, branch or tag; default ``main``)."""
    folder = repository_folder(repo_id)
    commit = revision if revision and _COMMIT.fullmatch(revision) else None
    if commit is None:
        name = revision or "main"
        if any(part in ("", ".", "..") for part in name.split("/")):
            return None
        try:
            commit = (folder / "refs" / name).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not _COMMIT.fullmatch(commit):
            return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def repository_of(snapshot: Path) -> tuple[Path, str, str] | None:
    """``(repository folder, repo id, commit)`` if ``snapshot`` is one of a cache."""
    folder = snapshot.parent.parent
    if (
        snapshot.parent.name == "snapshots"
        and folder.name.startswith("models--")
        and (folder / "blobs").is_dir()
    ):
        return folder, repository_id(folder.name), snapshot.name
    return None


def repository_id(folder_name: str) -> str:
    """The repository whose folder is called so: ``models--Qwen--Qwen3-8B`` is Qwen/Qwen3-8B's."""
    return folder_name.removeprefix("models--").replace("--", "/")


def sha256_by_name(path: Path) -> str | None:
    """What a blob of the cache claims to be: its name, where that is a sha256."""
    return path.name if path.parent.name == "blobs" and _SHA256.fullmatch(path.name) else None
