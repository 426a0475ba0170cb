"""Installing an engine: resolve, lock, fetch exactly what was locked, try it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, TextIO

from qwharf import settings as settings_module
from qwharf.engines import building, known, native, packages, pythons
from qwharf.engines.building import Order
from qwharf.engines.installed import ENVIRONMENT, LOCK, Installed, python_of
from qwharf.engines.installers import WORK, Installer, Pip, Uv, find_uv, site_packages
from qwharf.engines.known import Recipe
from qwharf.engines.progress import State, Tell, quiet
from qwharf.errors import UsageError
from qwharf.settings import Settings

With = Literal["uv", "pip"]


def install(
    engine: str,
    version: str | None = None,
    variant: str | None = None,
    *,
    settings: Settings | None = None,
    tell: Tell = quiet,
    installer: With | None = None,
    again: bool = False,
) -> Installed:
    """Install ``engine``, unless it is there already.

    Args:
        engine: ``vllm``, ``sglang``, ``mlx``, ``llama.cpp`` or ``llm-compressor``.
        version: default: the one known to be good.
        variant: what it shall compute on; default: what suits this machine.
        settings: where engines lie; default: the environment's.
        tell: is told of the progress.
        installer: default: uv where it is, else venv and pip.
        again: replace what is there, once the new one is whole.

    Raises:
        UsageError: no such engine, version or variant, or none for this system.
        EngineError: no Python or compiler for it, packages that do not go together, or what was
            made does not work.
        NetworkError: the package index cannot be reached.
        StorageError: not enough disk space, or a folder that cannot be written.
        ChecksumMismatch: a package's bytes are not those that were locked.
        Conflict: the same version is here for other hardware.
    """
    where = settings or settings_module.load()
    if engine == "llama.cpp" and variant == "native":
        return _compile(version, where, tell, again)
    recipe = known.choose(engine, version, variant)
    order = Order(
        engine=engine,
        version=recipe.folder_name,
        variant=recipe.variant,
        disk_bytes=recipe.disk_bytes,
        again=again,
    )

    def fill(folder: Path, log: TextIO) -> dict[str, Any]:
        environment = folder / ENVIRONMENT
        return _fill(recipe, _installer(recipe, environment, log, installer), folder, tell)

    return building.make(order, fill, where, tell)


def _compile(version: str | None, settings: Settings, tell: Tell, again: bool) -> Installed:
    if version is not None:
        raise UsageError(
            f"llama.cpp=={version}",
            found="a version beside --native",
            expected="llama.cpp --native: the sources are of one version",
        )
    order = Order(
        engine="llama.cpp",
        version="native",
        variant="native",
        disk_bytes=known.native().disk_bytes,
        again=again,
    )
    return building.make(order, lambda folder, log: native.build(folder, log, tell), settings, tell)


def _installer(recipe: Recipe, environment: Path, log: TextIO, wish: With | None) -> Installer:
    what = f"{recipe.engine} {recipe.version}"
    uv = find_uv()
    if wish == "uv" and uv is None:
        raise UsageError("--with uv", found="no uv on this machine", hint="`pip install uv`")
    # pip can tie a package to the address where it was found, which matters where two indexes
    # have different files of one version.
    if uv is None or wish == "pip" or (wish is None and recipe.bare_index):
        return Pip(what, environment, log, recipe.pythons)
    return Uv(what, environment, log, recipe.pythons, uv)


def _fill(recipe: Recipe, installer: Installer, folder: Path, tell: Tell) -> dict[str, Any]:
    """Resolve, lock and install into ``folder``; what the manifest says of it."""
    environment = folder / ENVIRONMENT
    installer.create(tell)
    resolved = installer.resolve(recipe, tell)
    python = pythons.ask(python_of(environment))
    version = python.text if python else "unknown"
    lock = folder / LOCK
    lock.write_text(
        resolved.text(
            [
                f"{recipe.engine} {recipe.version} ({recipe.variant}), Python {version}",
                "the same again: pip install --no-deps -r lock.txt",
            ]
        ),
        "utf-8",
    )
    installer.install(lock, tell)
    shutil.rmtree(folder / WORK)
    tell(State("install", len(resolved.packages), len(resolved.packages)))
    if recipe.alias:
        _add_alias(site_packages(environment), recipe.alias, f"{recipe.version}+{recipe.variant}")
    engine = _package_of(recipe)
    found = next(p for p in resolved.packages if packages.canonical(p.name) == engine)
    return {
        "detail": f"{found.name} {found.version}",
        "installer": installer.describe(),
        "packages": len(resolved.packages),
        "python": version,
        "extra_indexes": list(resolved.extra_indexes),
        "seen": recipe.seen,
        "source": recipe.source,
    }


def _package_of(recipe: Recipe) -> str:
    """The package that is the engine itself: the one that is asked for by version."""
    wanted = (*recipe.bare, *recipe.requirements)
    return packages.canonical(next(r for r in wanted if "{version}" in r).partition("==")[0])


def _add_alias(place: Path, name: str, version: str) -> None:
    """Let a package of another name be found as ``name``: metadata without a file of code."""
    folder = place / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8"
    )
    (folder / "INSTALLER").write_text("qwharf\n", "utf-8")
    (folder / "RECORD").write_text("", "utf-8")
