"""Bring weights that are on this disk into the store, without copying them where possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from qwharf.artifacts import disk, hf_cache, ollama_models
from qwharf.artifacts.blobs import BlobRef
from qwharf.artifacts.disk import Progress
from qwharf.artifacts.inspecting import Inspected, inspect_folder, inspect_gguf
from qwharf.artifacts.selection import INDEX, is_companion
from qwharf.artifacts.store import Store
from qwharf.errors import InvalidFile, UnknownModel
from qwharf.types import Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An artifact that came from this disk."""

    artifact: Artifact
    how: str
    """For a person: whether bytes were shared or copied, and why."""


def import_path(
    store: Store,
    path: Path,
    *,
    model: str,
    progress: Progress | None = None,
    file_name: str | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Imported:
    """Bring a checkpoint folder, a Hugging Face cache or a ``.gguf`` file into ``store``.

    Files are shared by hard link, else by reflink, else copied. A hard-linked file stays its
    owner's: writing into it damages the artifact, which :meth:`Store.check` notices. Headers are
    read before anything is stored; files that are not part of the model (pickles, optimizer
    states) stay outside.

    Args:
        store: where to.
        path: a folder with ``config.json``; a cache's ``models--…`` folder or one of its
            snapshots; a ``.gguf`` file (any part of a split one).
        model: the name to keep it under.
        progress: told the bytes read.
        file_name: what to call a ``.gguf`` file whose own name says nothing (Ollama's).
        provenance: what else is known of where it came from.

    Raises:
        UnknownModel: nothing is there.
        InvalidFile, UnsupportedArchitecture: it is not what it should be; nothing is stored.
        StorageError: the store cannot take it.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UnknownModel(str(path), found="no such file or folder")
    origin = path.resolve()
    more = dict(provenance or {})
    if origin.is_file():
        return _import_gguf(store, origin, path, model, progress, file_name, more)
    return _import_folder(store, origin, model, progress, more)


def _import_gguf(
    store: Store,
    origin: Path,
    path: Path,
    model: str,
    progress: Progress | None,
    file_name: str | None = None,
    more: Mapping[str, str] | None = None,
) -> Imported:
    from qwharf.formats.gguf import split_parts

    # A link's own name is the better one: a cache's blob is called by its hash.
    named = path if path.suffix.lower() == ".gguf" else origin
    suffix = named.suffix.lower() == ".gguf"
    if not suffix and not _is_gguf(named):
        raise InvalidFile(
            str(path),
            found="a file that does not begin as GGUF does",
            expected="a `.gguf` file or a checkpoint folder",
            hint="for safetensors, give the folder that holds config.json",
        )
    provenance = {"source": str(origin), **(more or {})}
    root = named.parent.resolve()
    snapshot = hf_cache.repository_of(root)
    if snapshot is not None:
        root, repository, revision = snapshot
        provenance |= {"repository": repository, "revision": revision, "hub": "hf"}
    # The named file may be a link to anywhere: the user named it. Its siblings may not.
    for part in split_parts(named):
        if part != named:
            _inside(part, root)
    inspected = inspect_gguf(named)
    # Ollama's blobs have no suffix, but engines want one.
    files = {
        p.name if suffix else file_name or f"{p.name}.gguf": p.resolve() for p in inspected.weights
    }
    return _store(store, files, inspected, model, provenance, min(files), progress)


def _is_gguf(path: Path) -> bool:
    disk.require_file(path)
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _import_folder(
    store: Store,
    origin: Path,
    model: str,
    progress: Progress | None,
    more: Mapping[str, str],
) -> Imported:
    folder = _snapshot_of(origin)
    provenance = {"source": str(folder), **more}
    cached = hf_cache.repository_of(folder)
    root = folder
    if cached is not None:
        root, repository, revision = cached
        provenance |= {"repository": repository, "revision": revision, "hub": "hf"}
    names = list(_names(folder))
    ggufs = [n for n in names if n.lower().endswith(".gguf")]
    if ggufs and "config.json" not in names:
        return _import_only_gguf(store, folder, ggufs, model, progress)
    for name in names:  # before anything is read through a link
        if name.endswith(".safetensors") or is_companion(name) or INDEX.fullmatch(name):
            _inside(folder / name, root)
    inspected = inspect_folder(folder)
    wanted = {p.relative_to(folder).as_posix() for p in inspected.weights}
    wanted |= {n for n in names if is_companion(n) or INDEX.fullmatch(n)}
    files = {n: _inside(folder / n, root) for n in sorted(wanted)}
    return _store(store, files, inspected, model, provenance, None, progress)


def _import_only_gguf(
    store: Store, folder: Path, names: list[str], model: str, progress: Progress | None
) -> Imported:
    from qwharf.formats.gguf import split_parts

    first = split_parts(folder / names[0])
    if {folder / n for n in names} != set(first):
        raise InvalidFile(
            str(folder),
            found=f"{len(names)} .gguf files: {', '.join(names[:4])}",
            expected="one model",
            hint=f"name the file: {folder / names[0]}",
        )
    root = (hf_cache.repository_of(folder) or (folder,))[0]
    return _import_gguf(store, _inside(first[0], root), first[0], model, progress)


def _snapshot_of(folder: Path) -> Path:
    """The snapshot to take of a cache's repository folder; any other folder is itself."""
    if not (folder.name.startswith("models--") and (folder / "snapshots").is_dir()):
        return folder
    snapshots = sorted(p for p in (folder / "snapshots").iterdir() if p.is_dir())
    main = folder / "refs" / "main"
    if main.is_file():
        named = folder / "snapshots" / main.read_text("utf-8", "replace").strip()
        if named in snapshots:
            return named
    if len(snapshots) == 1:
        return snapshots[0]
    raise InvalidFile(
        str(folder),
        found=f"{len(snapshots)} snapshots and no refs/main that names one",
        expected="one revision",
        hint="give one of the folders in its `snapshots`",
    )


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path.name


def _inside(path: Path, root: Path) -> Path:
    """What ``path`` leads to, which must lie below ``root``.

    Raises:
        InvalidFile: a symbolic link leads out, or nowhere.
    """
    real = path.resolve()
    if not real.is_relative_to(root):
        raise InvalidFile(
            str(path),
            found=f"a symbolic link to {real}",
            expected=f"a file in {root}",
            hint="replace the link by the file, or import the folder that it leads to",
        )
    disk.require_file(real)
    return real


def _store(
    store: Store,
    files: Mapping[str, Path],
    inspected: Inspected,
    model: str,
    provenance: Mapping[str, str],
    entry: str | None,
    progress: Progress | None,
) -> Imported:
    total = sum(disk.require_file(p).st_size for p in files.values())
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("import", min(done, total), total)

    refs = {
        name: store.put_file(path, "link", expected_sha256=_sha256_by_name(path), step=step)
        for name, path in files.items()
    }
    how = describe(refs.values(), store)
    artifact = store.add(model, inspected.format, refs, {**provenance, "how": how}, entry)
    return Imported(artifact=artifact, how=how)


def _sha256_by_name(path: Path) -> str | None:
    """What a content of a cache, or of Ollama's store, claims to be."""
    return hf_cache.sha256_by_name(path) or ollama_models.sha256_by_name(path)


def describe(refs: Iterable[BlobRef], store: Store) -> str:
    """How files came in, as a sentence without its subject."""
    found = list(refs)
    copied = sum(r.size_bytes for r in found if r.how == "copy")
    kinds = Counter(r.how for r in found if r.size_bytes)
    if copied:
        return (
            f"{copied / 1e9:.2f} GB copied: {store.root} is on another file system, or this one "
            "has neither hard links nor reflinks"
        )
    if set(kinds) <= {"already there"}:
        return "all of it was in the store already"
    names = {"hard link": "hard-linked", "reflink": "reflinked"}
    done = [names[kind] for kind in ("hard link", "reflink") if kind in kinds]
    return f"{' and '.join(done)}, no bytes copied"
