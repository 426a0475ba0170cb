"""``store``: look after the files on disk."""

from __future__ import annotations

from pathlib import Path

import click

from qwharf import settings
from qwharf.artifacts.store import Store
from qwharf.cli.options import with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb
from qwharf.daemon.client import DaemonClient
from qwharf.errors import Conflict, UnknownModel


@click.group()
def store() -> None:
    """Look after the content-addressed store: one copy of every weight file."""


@store.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--as", "model", metavar="MODEL", help="Keep it under this name; default: its own.")
@with_output
def import_(path: Path, model: str | None, out: Output) -> None:
    """Take PATH in: a checkpoint folder, a Hugging Face cache's folder, or a .gguf file.

    Files are shared by hard link or reflink; only where neither is possible they are copied, and
    that is said.

    \b
    Examples:
      qwharf store import ./Qwen3-8B-Q4_K_M.gguf
      qwharf store import ~/.cache/huggingface/hub/models--Qwen--Qwen3-8B --as qwen3:8b
    """
    from qwharf import catalog
    from qwharf.artifacts.importing import import_path

    name = catalog.resolve(model).model.name if model else own_name(path.resolve())
    with out.progress() as bar, Store(settings.load().store_dir) as shelf:
        taken = import_path(shelf, path, model=name, progress=bar)
    out.step("import", taken.how)
    out.data(
        taken.artifact,
        f"{taken.artifact.id[:12]}  {taken.artifact.model} {taken.artifact.format}: "
        f"{gb(taken.artifact.size_bytes)}\n{taken.artifact.path}",
    )


def own_name(path: Path) -> str:
    """What files at ``path`` are called: the repository of a cache's folder, else their own name.

    A repository that the catalogue knows gets the catalogue's name.
    """
    from qwharf import catalog
    from qwharf.artifacts.hf_cache import repository_id

    cached = next((p.name for p in (path, *path.parents) if p.name.startswith("models--")), None)
    if cached is None:
        return path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name
    repository = repository_id(cached)
    try:
        return catalog.resolve(repository).model.name
    except UnknownModel:
        return repository


@store.command("ls")
@with_output
def ls(out: Output) -> None:
    """List artifacts: model, format, size, where they came from."""
    artifacts = Store(settings.load().store_dir).artifacts()
    rows = [
        [
            a.id[:12],
            a.model,
            a.format,
            gb(a.size_bytes),
            len(a.files),
            a.provenance.get("source") or "-",
        ]
        for a in artifacts
    ]
    human = out.table(
        ["id", "model", "format", "size", "files", "from"], rows, right={"size", "files"}
    )
    out.data(artifacts, human if rows else "The store is empty.")


@store.command("verify")
@with_output
def verify(out: Output) -> None:
    """Read every byte again and compare it with its sha256."""
    with out.progress() as bar:
        problems = Store(settings.load().store_dir).verify(progress=bar)
    out.data({"problems": problems}, "\n".join(str(p) for p in problems) or "All files are sound.")
    if problems:
        raise SystemExit(4)


@store.command("gc")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@with_output
def gc(dry_run: bool, out: Output) -> None:
    """Remove leftovers: files that no artifact names, and abandoned downloads."""
    freed = Store(settings.load().store_dir).gc(dry_run=dry_run)
    verb = "would be freed" if dry_run else "freed"
    out.data(freed, f"{gb(freed.freed_bytes)} {verb} in {count(freed.files, 'file')}")


@store.command("rm")
@click.argument("artifact_id", metavar="ID")
@with_output
def rm(artifact_id: str, out: Output) -> None:
    """Remove the artifact ID (a prefix is enough); its space is freed by `store gc`."""
    config = settings.load()
    shelf = Store(config.store_dir)
    artifact = shelf.get(artifact_id)
    if artifact is None:
        raise UnknownModel(artifact_id, expected="an id of `qwharf store ls`")
    client = DaemonClient(config)
    users = (
        [d.spec.name for d in client.list() if d.spec.artifact_id == artifact.id]
        if (client.is_running())
        else []
    )
    if users:
        raise Conflict(
            artifact_id,
            found=f"in use by {', '.join(users)}",
            hint=f"`qwharf down {users[0]}` first",
        )
    shelf.remove(artifact.id)
    out.data(artifact, f"removed {artifact.model} {artifact.format}; `qwharf store gc` frees it")
