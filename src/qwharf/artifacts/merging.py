"""An artifact in parts as one file: put together once, and kept in the store beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qwharf import __version__
from qwharf.artifacts import disk, locks
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.store import Store
from qwharf.formats.gguf_merge import merge_gguf
from qwharf.types import Artifact

_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)


def in_parts(artifact: Artifact) -> bool:
    """Whether the weights lie in several GGUF files."""
    return artifact.format.container == "gguf" and _PART.search(artifact.path.name) is not None


def merged_before(store: Store, artifact: Artifact) -> Artifact | None:
    """What an earlier :func:`merge_artifact` of the same has left in the store."""
    return store.find(artifact.model, artifact.format, origin=_origin(artifact))


def merge_artifact(
    store: Store, artifact: Artifact, *, progress: Progress | None = None
) -> Artifact:
    """``artifact``, whose weights are :func:`in_parts`, in one file. Two calls at once do the work
    once. The parts stay, for the engines that take them.

    Raises:
        ChecksumMismatch: a part was changed in the store.
        InvalidFile: the parts do not belong together.
        StorageError: no room, which is asked before the first byte, or no permission.
    """
    work = store.folder("work")
    key = f"{artifact.id[:32]}-merged"

    def tell(text: str, done: int = 0, total: int | None = None) -> None:
        if progress is not None:
            progress(text, done, total)

    with locks.locked(
        work / f"{key}.lock", lambda: tell("another command merges the parts: waiting"), delete=True
    ):
        made = merged_before(store, artifact)
        if made is not None:
            return made
        store.check(artifact)
        out = work / key
        disk.require_space(work, artifact.size_bytes, subject=artifact.model)
        merge_gguf(artifact.path, out, lambda done, total: tell("merge", done, total))
        name = _PART.sub("", artifact.path.name)
        read = 0

        def checked(count: int) -> None:
            nonlocal read
            read += count
            tell("checksum", read, artifact.size_bytes)

        ref = store.put_file(out, "move", step=checked)
        return store.add(artifact.model, artifact.format, {name: ref}, _about(artifact), name)


def _origin(artifact: Artifact) -> dict[str, str]:
    return {"converted_from": artifact.id}


def _about(artifact: Artifact) -> Mapping[str, str]:
    kept = ("repository", "revision", "hub")
    return {
        **_origin(artifact),
        "source": f"{len(artifact.files)} parts of {artifact.format}, merged",
        "tool": f"qwharf {__version__}",
        **{f"origin_{k}": artifact.provenance[k] for k in kept if k in artifact.provenance},
    }
