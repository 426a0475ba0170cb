"""How a version's folder appears: built under another name, tried, renamed when it is whole.

``<engine>/.building-<version>/`` is touched by no other process while the version's lock is held.
What an interrupted installation left there is thrown away by the next; what it fetched is still in
pip's or uv's own cache.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from qwharf.engines import doctor, moving
from qwharf.engines.installed import (
    ENVIRONMENT,
    MANIFEST,
    SCHEMA,
    Installed,
    describe,
    home,
    own,
    root,
)
from qwharf.engines.progress import State, Tell
from qwharf.engines.waiting import is_locked, locked
from qwharf.errors import Conflict, EngineError, StorageError, UsageError
from qwharf.settings import Settings

BUILDING = ".building-"
REMOVING = ".removing-"
LOCKS = ".locks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made."""

    engine: str
    version: str
    """Also the folder's name."""
    variant: str
    disk_bytes: int
    """Free space that it takes, at least."""
    again: bool = False
    """Replace what is there, once the new one is whole."""

    @property
    def what(self) -> str:
        """For people."""
        return f"{self.engine} {self.version}"


Fill = Callable[[Path, TextIO], dict[str, Any]]
"""Fills a folder, keeping a log; returns what the manifest shall say beside the usual."""


def make(order: Order, fill: Fill, settings: Settings, tell: Tell) -> Installed:
    """Fulfil ``order``, unless it is fulfilled already.

    Raises:
        Conflict: the same version is here for other hardware.
        StorageError: no space, no permission.
        EngineError: what was made does not work.
        QwharfError: what ``fill`` raises.
    """
    final = home(order.engine, order.version, settings)
    building = final.with_name(BUILDING + order.version)

    def waiting() -> None:
        tell(State("wait", detail="another process installs or removes it"))

    with _storage_errors(order.what), locked(_lock_of(final), waiting):
        here = _already(order, settings)
        if here is not None:
            return here
        _delete(building)
        _require_space(final, order)
        building.mkdir(parents=True)
        begun = time.time()
        try:
            with _log(order, settings) as log:
                facts = fill(building, log)
                manifest = {
                    "schema": SCHEMA,
                    "engine": order.engine,
                    "version": order.version,
                    "variant": order.variant,
                    "created_at": begun,
                    **facts,
                }
                tell(State("check", detail="trying it for the first time"))
                manifest["engine_version"] = _try(building, manifest, order, log)
            if (building / ENVIRONMENT).is_dir():
                moving.rename_in_scripts(building / ENVIRONMENT, building, final)
            manifest["size_bytes"] = moving.size_bytes(building)
            manifest["seconds"] = round(time.time() - begun, 1)
            _write_manifest(building, manifest)
            _delete(final)
            building.rename(final)
        except BaseException:
            _delete(building)
            raise
        return describe(final, manifest, order.engine, order.version)


def _already(order: Order, settings: Settings) -> Installed | None:
    here = next((x for x in own(order.engine, settings) if x.version == order.version), None)
    if here is None or here.problems or order.again:
        return None
    if here.variant != order.variant:
        raise Conflict(
            order.what,
            found=f"it is installed for {here.variant}",
            expected=f"none, or one for {order.variant}",
            hint=f"`qwharf engine install {order.engine}=={order.version} --{order.variant} "
            "--again` replaces it",
        )
    return here


def _try(building: Path, manifest: dict[str, Any], order: Order, log: TextIO) -> str | None:
    health = doctor.examine(describe(building, manifest, order.engine, order.version), log)
    log.writelines(f"problem: {problem}\n" for problem in health.problems)
    if not health.works:
        raise EngineError(
            order.what,
            found=f"it was installed, but does not work: {'; '.join(health.problems)}",
            expected="an engine that starts",
            hint=f"all that was said: {log.name}",
        )
    return health.version


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    path = folder / MANIFEST
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


# ------------------------------------------------------------------------------------- removing


def remove(installed: Installed, settings: Settings) -> int:
    """Delete an installation of qwharf's; the bytes that this freed.

    Raises:
        UsageError: it is not qwharf's.
        Conflict: it is being installed or removed now.
        StorageError: its files cannot be deleted.
    """
    what = f"{installed.engine} {installed.version}"
    if installed.source != "qwharf":
        raise UsageError(
            what,
            found=f"it is not qwharf's: {installed.folder}",
            expected="an engine that `qwharf engine install` made",
            hint="remove it with what installed it",
        )
    lock = _lock_of(home(installed.engine, installed.version, settings))
    with _storage_errors(what):
        if is_locked(lock):
            raise Conflict(what, found="another process installs or removes it", hint="wait")
        with locked(lock):
            freed = moving.size_bytes(installed.folder)
            _delete(installed.folder)
            return freed


def clean(settings: Settings) -> tuple[str, ...]:
    """Delete what interrupted installations and removals left; the names of what was deleted."""
    gone = []
    for folder in leftovers(settings):
        with _storage_errors(folder.name):
            _delete(folder)
        gone.append(f"{folder.parent.name}/{folder.name}")
    return tuple(gone)


def leftovers(settings: Settings) -> tuple[Path, ...]:
    """Folders of installations and removals that nobody goes on with."""
    found = []
    for prefix in (BUILDING, REMOVING):
        for folder in sorted(root(settings).glob(f"*/{prefix}*")):
            final = folder.with_name(folder.name.removeprefix(prefix))
            if not is_locked(_lock_of(final)):
                found.append(folder)
    return tuple(found)


def _delete(folder: Path) -> None:
    """Delete ``folder``, whose name it loses first: half of it is never taken for the whole."""
    if not folder.is_dir():
        return
    if not folder.name.startswith("."):
        grave = folder.with_name(REMOVING + folder.name)
        shutil.rmtree(grave, ignore_errors=True)
        folder = folder.rename(grave)
    shutil.rmtree(folder)


# ---------------------------------------------------------------------------------------- disk


def _lock_of(final: Path) -> Path:
    return final.parent / LOCKS / final.name


@contextlib.contextmanager
def _log(order: Order, settings: Settings) -> Iterator[TextIO]:
    """All that was said, kept whatever happens to the rest."""
    path = settings.log_dir / f"install-{order.engine}-{order.version}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", buffering=1) as file:
        yield file


@contextlib.contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            str(e.filename or what),
            found=e.strerror or str(e),
            hint="free some space (`qwharf engine ls` shows what engines take) and run it again"
            if full
            else "set QWHARF_HOME to a folder that you may write to",
        ) from e


def _require_space(final: Path, order: Order) -> None:
    place = final
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < order.disk_bytes:
        raise StorageError(
            order.what,
            found=f"{free / 1e9:.1f} GB free in {place}",
            expected=f"about {order.disk_bytes / 1e9:.1f} GB",
            hint="free some space (`qwharf engine ls` shows what engines take), or set QWHARF_HOME "
            "to a folder on a larger disk",
            free_bytes=free,
            needed_bytes=order.disk_bytes,
        )
