"""``store``: look after the files on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qwharf import settings
from qwharf.artifacts.store import Store
from qwharf.cli.options import with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb
from qwharf.codec import encode
from qwharf.daemon.client import DaemonClient
from qwharf.errors import Conflict, InvalidFile, UnknownModel
from qwharf.types import Model

if TYPE_CHECKING:
    from qwharf.artifacts.uses import Use


@click.group()
def store() -> None:
    """Look after the content-addressed store: one copy of every weight file."""


@store.command("import")
@click.argument("source", metavar="PATH")
@click.option("--as", "model", metavar="MODEL", help="Keep it under this name; default: its own.")
@with_output
def import_(source: str, model: str | None, out: Output) -> None:
    """Take PATH in: a checkpoint folder, a Hugging Face cache's folder, or a .gguf file.

    ollama:NAME and lmstudio:PUBLISHER/REPOSITORY stand for what those programs have.

    Files are shared by hard link or reflink; only where neither is possible they are copied, and
    that is said.

    \b
    Examples:
      qwharf store import ./Qwen3-8B-Q4_K_M.gguf
      qwharf store import ~/.cache/huggingface/hub/models--Qwen--Qwen3-8B --as qwen3:8b
      qwharf store import ollama:qwen3:8b --as qwen3:8b
      qwharf store import lmstudio:lmstudio-community/Qwen3-8B-GGUF
    """
    from qwharf import catalog
    from qwharf.artifacts.importing import import_path

    found = origin_of(source)
    known = catalog.resolve(model).model if model else None
    if known is not None and found.program is not None:
        check_is(known, found)
    name = known.name if known else (found.name or own_name(found.path.resolve()))
    with out.progress() as bar, Store(settings.load().store_dir) as shelf:
        taken = import_path(
            shelf,
            found.path,
            model=name,
            progress=bar,
            file_name=found.file_name,
            provenance={"program": found.program} if found.program else None,
        )
    out.step("import", taken.how)
    out.data(
        taken.artifact,
        f"{taken.artifact.id[:12]}  {taken.artifact.model} {taken.artifact.format}: "
        f"{gb(taken.artifact.size_bytes)}\n{taken.artifact.path}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the user named."""

    path: Path
    name: str | None = None
    """What to call it, where its path does not say."""
    file_name: str | None = None
    program: str | None = None
    """``ollama`` or ``lmstudio``."""


def origin_of(source: str) -> Origin:
    """A path, or what ``ollama:`` or ``lmstudio:`` stands for.

    Raises:
        UsageError, UnknownModel, InvalidFile: that program has no such model.
    """
    from qwharf.artifacts import lm_studio_models, ollama_models

    program, colon, name = source.partition(":")
    if not colon or program not in ("ollama", "lmstudio") or Path(source).exists():
        return Origin(path=Path(source))
    if program == "ollama":
        manifest, path = ollama_models.weights(ollama_models.models_folder(), name)
        file = f"{manifest.name.model}-{manifest.name.tag}.gguf"
        return Origin(path=path, name=source, file_name=file, program=program)
    path = lm_studio_models.find(lm_studio_models.models_folder(), name)
    return Origin(path=path, name=source, program=program)


def check_is(model: Model, found: Origin) -> None:
    """The weights must be those of ``model`` as far as their headers tell: Ollama's tags move, and
    `qwen3:4b` is another model today than it was.

    Raises:
        InvalidFile: they are not.
    """
    from qwharf.catalog.local import read_local

    local = read_local(found.path)
    fields = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "rope_theta")
    shape = [getattr(local.architecture, f) for f in fields]
    if shape == [getattr(model.architecture, f) for f in fields]:
        if local.thinking == model.thinking:
            return
        what = f"weights of the kind `{local.thinking}`, by their chat template"
        wanted = f"`{model.thinking}`, as {model.name} is"
    else:
        what = "weights of another shape"
        wanted = f"those of {model.name}"
    raise InvalidFile(
        str(found.path),
        found=what,
        expected=wanted,
        hint="leave --as out, or give the name of the model that it is; tags of Ollama's such as "
        "qwen3:4b have moved to the 2507 models",
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
    """List artifacts: model, format, size, where they came from, and who else uses the files."""
    from qwharf.artifacts import uses

    shelf = Store(settings.load().store_dir)
    artifacts, used = shelf.artifacts(), uses.find(shelf)
    rows = [
        [
            a.id[:12],
            a.model,
            a.format,
            gb(a.size_bytes),
            len(a.files),
            a.provenance.get("source") or "-",
            ", ".join(map(shown, programs(used.get(a.id, ())))) or "-",
        ]
        for a in artifacts
    ]
    human = out.table(
        ["id", "model", "format", "size", "files", "from", "also in"], rows, right={"size", "files"}
    )
    data = [{**encode(a), "uses": encode(used.get(a.id, ()))} for a in artifacts]
    out.data(data, human if rows else "The store is empty.")


def programs(found: Iterable[Use]) -> list[Use]:
    """One use of each program's model: an MLX folder has many files."""
    return list({(u.platform, u.model): u for u in found}.values())


def shown(use: Use) -> str:
    """``ollama qwharf/x:latest``; a copy costs its space again, and says so."""
    return f"{use.platform} {use.model}" + ("" if use.shared else " (a copy)")


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
    from qwharf.artifacts import uses

    config = settings.load()
    shelf = Store(config.store_dir)
    artifact = shelf.get(artifact_id)
    if artifact is None:
        raise UnknownModel(artifact_id, expected="an id of `qwharf store ls`")
    client = DaemonClient(config)
    running = client.list() if client.is_running() else []
    users = [
        d.spec.name
        for d in running
        if d.spec.artifact_id == artifact.id or artifact.path in d.spec.adapters.values()
    ]
    if users:
        raise Conflict(
            artifact_id,
            found=f"in use by {', '.join(users)}",
            hint=f"`qwharf down {users[0]}` first",
        )
    others = [shown(u) for u in programs(uses.find(shelf).get(artifact.id, ())) if u.shared]
    shelf.remove(artifact.id)
    rest = (
        f"; its files stay where {', '.join(others)} uses them"
        if others
        else "; `qwharf store gc` frees it"
    )
    out.data(artifact, f"removed {artifact.model} {artifact.format}{rest}")
