"""Making an environment, resolving into it and filling it from a lock: with uv, or venv and pip.

Both do the same in three steps; what is installed is what the lock says, to the byte where the
hashes are known.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from qwharf.engines import failures, packages, progress, pythons
from qwharf.engines.installed import python_of
from qwharf.engines.known import Recipe
from qwharf.engines.packages import Package, Resolved
from qwharf.engines.progress import Reader, State, Tell
from qwharf.engines.running import Finished, run
from qwharf.errors import QwharfError, StorageError

WORK = "work"
RETRIES = ("--retries", "2")
BEST_MATCH = ("--index-strategy", "unsafe-best-match")
"""Uv takes a package from one index alone by default; a second index has old copies of many."""
RAW_PROGRESS_SINCE = (24, 1)
"""The first pip that counts its bytes in lines."""


class Installer(Protocol):
    """One way to fill an environment."""

    def describe(self) -> str:
        """Name and version, for the manifest."""
        ...

    def create(self, tell: Tell) -> None:
        """Make the environment, empty.

        Raises:
            EngineError: there is no Python for it.
        """
        ...

    def resolve(self, recipe: Recipe, tell: Tell) -> Resolved:
        """The exact packages of ``recipe``, without those that it leaves out.

        Raises:
            QwharfError: as :func:`qwharf.engines.failures.explain` has it.
        """
        ...

    def install(self, lock: Path, tell: Tell) -> None:
        """Install exactly what ``lock`` says.

        Raises:
            QwharfError: as :func:`qwharf.engines.failures.explain` has it.
        """
        ...


def site_packages(environment: Path) -> Path:
    """Where an environment keeps its packages."""
    found = sorted(environment.glob("lib/python3*/site-packages"))
    return found[0] if found else environment / "Lib" / "site-packages"


class _Base:
    """What both share: the log, the errors, counting."""

    def __init__(self, what: str, environment: Path, log: TextIO, minors: Sequence[str]) -> None:
        self.what, self.environment, self.log, self.minors = what, environment, log, minors
        self.work = environment.with_name(WORK)
        """For files that are only needed meanwhile; the caller deletes it."""
        self.work.mkdir(exist_ok=True)

    def _run(
        self, argv: Sequence[str], tell: Tell, *, phase: str, wanted: Sequence[Package] = ()
    ) -> Finished:
        reader = Reader(phase, len(wanted) or None, tell)
        place = site_packages(self.environment)
        names = {packages.canonical(p.name) for p in wanted}
        reader.tell()
        return run(
            argv,
            cwd=self.work,
            log=self.log,
            on_line=reader.line,
            on_wait=lambda: reader.installed(len(names & packages.present(place))),
        )

    def _resolve(
        self,
        attempt: Callable[[Sequence[str]], tuple[Finished, list[Package]]],
        extra_index: str | None,
    ) -> tuple[list[Package], tuple[str, ...]]:
        """With the machine's own indexes, and only if those lack something with one more."""
        needed: tuple[str, ...] = ()
        finished, chosen = attempt(())
        if finished.code and extra_index and failures.lacks_something(finished.lines):
            needed = (extra_index,)
            first = finished
            finished, chosen = attempt(("--extra-index-url", extra_index))
            if finished.code and not failures.lacks_something(finished.lines):
                finished = first  # it is not reached, but what is missing matters more
        if finished.code:
            raise self._failed(finished)
        return chosen, needed

    def _failed(self, finished: Finished) -> QwharfError:
        return failures.explain(self.what, finished.lines, self.log.name)

    def _file(self, name: str, lines: Sequence[str]) -> Path:
        path = self.work / name
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path


class Pip(_Base):
    """The standard library's venv, and pip in it."""

    version: tuple[int, ...] = ()

    def describe(self) -> str:
        """``pip 26.3``."""
        return f"pip {'.'.join(map(str, self.version))}"

    def create(self, tell: Tell) -> None:
        """With the newest pip that the index has: old ones fetch whole packages to resolve."""
        tell(State("prepare", detail="looking for a Python"))
        python = pythons.find(self.minors, needs_venv=True)
        if python is None:
            raise pythons.missing(self.what, self.minors)
        tell(State("prepare", detail=f"an environment of Python {python.text}"))
        made = run([str(python.path), "-m", "venv", str(self.environment)], log=self.log)
        if made.code:
            raise self._failed(made)
        # Without an index (a wheelhouse, say) the pip that came with Python does as well.
        self._run(self._pip("install", "--upgrade", "pip"), progress.quiet, phase="prepare")
        said = run(self._pip("--version"), log=self.log)
        found = re.match(r"pip (\d+(?:\.\d+)*)", said.lines[-1] if said.lines else "")
        if found is None:
            raise self._failed(said)
        self.version = tuple(int(n) for n in found[1].split("."))

    def resolve(self, recipe: Recipe, tell: Tell) -> Resolved:
        """By pip's dry run, whose report names every file and its hash."""
        pins = self._file("constraints.txt", recipe.pins)
        words = [*recipe.filled(recipe.requirements), "--constraint", str(pins)]
        chosen, needed = self._resolve(
            lambda more: self._report([*words, *more], tell), recipe.extra_index
        )
        if recipe.bare:
            only = ["--index-url", recipe.bare_index] if recipe.bare_index else []
            finished, bare = self._report(
                [*recipe.filled(recipe.bare), "--no-deps", *only], tell, with_url=bool(only)
            )
            if finished.code:
                raise self._failed(finished)
            chosen += bare
        return Resolved(packages.without(chosen, recipe.exclude), needed)

    def _report(
        self, words: Sequence[str], tell: Tell, *, with_url: bool = False
    ) -> tuple[Finished, list[Package]]:
        report = self.work / "report.json"
        argv = self._pip(
            *("install", "--dry-run", "--ignore-installed", "--only-binary", ":all:"),
            *("--report", str(report), *words),
        )
        finished = self._run(argv, tell, phase="resolve")
        if finished.code:
            return finished, []
        text = report.read_text("utf-8")
        return finished, packages.from_pip_report(text, with_url=with_url)

    def install(self, lock: Path, tell: Tell) -> None:
        """From the lock, nothing beside it."""
        wanted = packages.parse_lock(lock.read_text("utf-8"), str(lock))
        strict = ["--require-hashes"] if packages.are_hashed(wanted) else []
        argv = self._pip("install", "--no-deps", *strict, "--requirement", str(lock))
        finished = self._run(argv, tell, phase="download", wanted=wanted)
        if finished.code:
            raise self._failed(finished)

    def add(self, requirements: Sequence[str], tell: Tell) -> None:
        """Install what is only needed while something else is made."""
        finished = self._run(self._pip("install", *requirements), tell, phase="download")
        if finished.code:
            raise self._failed(finished)

    def source(self, name: str, version: str, tell: Tell) -> Path:
        """Fetch a source distribution, whose build system must be here already."""
        folder = self.work / "download"
        words = ("download", "--no-deps", "--no-build-isolation", "--no-binary", name)
        argv = self._pip(*words, "--dest", str(folder), f"{name}=={version}")
        finished = self._run(argv, tell, phase="download")
        archives = sorted(folder.glob("*.tar.gz"))
        if finished.code or not archives:
            raise self._failed(finished)
        return archives[0]

    def _pip(self, *words: str) -> list[str]:
        argv = [str(python_of(self.environment)), "-m", "pip", "--no-input", "--no-color"]
        argv += ["--disable-pip-version-check", *words]
        if words[0] in ("install", "download"):
            argv += RETRIES
            if self.version >= RAW_PROGRESS_SINCE:
                argv += ["--progress-bar", "raw"]
        return argv


class Uv(_Base):
    """The program uv: faster, and it fetches a Python where there is none."""

    def __init__(
        self, what: str, environment: Path, log: TextIO, minors: Sequence[str], program: str
    ) -> None:
        super().__init__(what, environment, log, minors)
        self.program = program

    def _failed(self, finished: Finished) -> QwharfError:
        error = super()._failed(finished)
        if not isinstance(error, StorageError):
            error.hint += "; uv does not know pip's settings: `--with pip` installs with pip"
        return error

    def describe(self) -> str:
        """``uv 0.9.1``."""
        said = run([self.program, "--version"], log=self.log).lines
        return " ".join(said[-1].split()[:2]) if said else "uv"

    def create(self, tell: Tell) -> None:
        """With a Python of this machine, else with one that uv fetches."""
        tell(State("prepare", detail="looking for a Python"))
        python = pythons.find(self.minors, needs_venv=False)
        named = str(python.path) if python else self.minors[0]
        tell(
            State("prepare", detail=f"an environment of Python {python.text if python else named}")
        )
        argv = [self.program, "venv", "--no-project", "--python", named, str(self.environment)]
        made = run(argv, log=self.log)
        if made.code:
            raise self._failed(made)

    def resolve(self, recipe: Recipe, tell: Tell) -> Resolved:
        """By ``uv pip compile``, which knows the hashes of all files of a release."""
        pins = self._file("constraints.txt", recipe.pins)
        wanted = self._file("requirements.in", recipe.filled(recipe.requirements))
        words = [str(wanted), "--constraint", str(pins)]
        chosen, needed = self._resolve(
            lambda more: self._compile([*words, *more], tell), recipe.extra_index
        )
        if recipe.bare:
            alone = self._file("bare.in", recipe.filled(recipe.bare))
            only = ["--default-index", recipe.bare_index] if recipe.bare_index else []
            finished, bare = self._compile([str(alone), "--no-deps", *only], tell)
            if finished.code:
                raise self._failed(finished)
            chosen += bare
            needed += (recipe.bare_index,) if recipe.bare_index else ()
        return Resolved(packages.without(chosen, recipe.exclude), needed)

    def _compile(self, words: Sequence[str], tell: Tell) -> tuple[Finished, list[Package]]:
        out = self.work / "compiled.txt"
        out.unlink(missing_ok=True)
        argv = [
            *(self.program, "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate"),
            *("--no-header", "--only-binary", ":all:", "--color", "never", *BEST_MATCH),
            *("--python", str(python_of(self.environment)), "--output-file", str(out), *words),
        ]
        finished = self._run(argv, tell, phase="resolve")
        if finished.code:
            return finished, []
        return finished, packages.parse_lock(out.read_text("utf-8"), str(out))

    def install(self, lock: Path, tell: Tell) -> None:
        """From the lock, nothing beside it."""
        wanted = packages.parse_lock(lock.read_text("utf-8"), str(lock))
        strict = ["--require-hashes"] if packages.are_hashed(wanted) else []
        argv = [
            *(self.program, "pip", "install", "--no-deps", "--color", "never"),
            *(*BEST_MATCH, *strict),
            *("--python", str(python_of(self.environment)), "--requirement", str(lock)),
        ]
        finished = self._run(argv, tell, phase="download", wanted=wanted)
        if finished.code:
            raise self._failed(finished)


def find_uv() -> str | None:
    """The program uv: on ``PATH``, or beside the Python that runs us."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if beside.is_file() else None)
