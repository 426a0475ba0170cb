"""``engine``: install engines into environments of their own, list, try and remove them."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import click

from qwharf import engines, settings
from qwharf.cli.options import with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count, gb
from qwharf.engines.installed import Installed, read_manifest
from qwharf.engines.progress import State
from qwharf.errors import Conflict, EngineError, InvalidFile, UsageError

VARIANTS = {
    "native": "llama.cpp: compile it for this processor.",
    "cuda": "For NVIDIA cards; the default where there is one.",
    "rocm": "llama.cpp: for AMD cards.",
    "vulkan": "llama.cpp: for any card with a Vulkan driver.",
    "cpu": "For the processor alone.",
    "parser": "SGLang: its argument parser alone, which checks command lines and serves nothing.",
}
DRAW_SECONDS = 0.1


@click.group()
def engine() -> None:
    """Install engines, each in an environment of its own; list, try and remove them."""


def variant_options(command: Any) -> Any:
    """``--native``, ``--cuda`` …, of which one may be given."""
    for name, text in reversed(VARIANTS.items()):
        command = click.option(f"--{name}", "variant", flag_value=name, help=text)(command)
    return command


@engine.command()
@click.argument("name", metavar="ENGINE[==VERSION]")
@variant_options
@click.option(
    "--with",
    "installer",
    type=click.Choice(["uv", "pip"]),
    help="What installs. [default: uv where it is, else pip]",
)
@click.option("--again", is_flag=True, help="Replace what is installed, once the new one is whole.")
@with_output
def install(name: str, variant: str | None, installer: Any, again: bool, out: Output) -> None:
    """Install ENGINE: vllm, sglang, mlx, llama.cpp or llm-compressor.

    The version is one known to be good unless you name another. Packages are resolved, written
    to lock.txt with their hashes, and installed exactly so; then the engine is tried.

    \b
    Examples:
      qwharf engine install vllm
      qwharf engine install vllm==0.32.0 --cpu
      qwharf engine install mlx
      qwharf engine install llama.cpp --native
    """
    from qwharf.engines.install import install as make

    which, version = split(name)
    status = Status(out)
    # Who is told to stop tidies up, too.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun = time.monotonic()
    try:
        made = make(which, version, variant, tell=status, installer=installer, again=again)
    finally:
        status.close()
        signal.signal(signal.SIGTERM, before)
    manifest = read_manifest(made.folder)
    seconds = time.monotonic() - begun
    out.step("ready", f"{made.engine} {made.version} ({made.variant}) after {seconds:.0f} s")
    out.data(
        record(made, manifest),
        f"{made.engine} {made.version}: {facts(manifest)}\n{made.folder}",
    )


@engine.command()
@with_output
def ls(out: Output) -> None:
    """List engines: qwharf's own and those that this machine has."""
    from qwharf.engines.building import leftovers

    config = settings.load()
    found = engines.installed(settings=config)
    rows, records = [], []
    for one in found:
        manifest = manifest_of(one)
        size = manifest.get("size_bytes")
        rows.append(
            [
                one.engine,
                one.version,
                one.variant,
                "qwharf" if one.source == "qwharf" else "system",
                gb(size) if size else "-",
                "; ".join(one.problems) or str(one.folder),
            ]
        )
        records.append(record(one, manifest))
    human = out.table(["engine", "version", "for", "from", "size", "where"], rows, right={"size"})
    out.data(records, human if rows else "No engine but the embedded llama.cpp.")
    if rest := leftovers(config):
        out.note(
            f"{count(len(rest), 'unfinished installation')}: `qwharf engine rm --unfinished` "
            "frees the space"
        )


@engine.command()
@click.argument("name", metavar="[ENGINE[==VERSION]]", required=False)
@click.option("--unfinished", is_flag=True, help="Remove what interrupted installations left.")
@with_output
def rm(name: str | None, unfinished: bool, out: Output) -> None:
    """Remove an engine that `qwharf engine install` made."""
    from qwharf.engines.building import clean, remove

    config = settings.load()
    if (name is None) is not unfinished:
        raise UsageError("engine rm", expected="an engine of `qwharf engine ls`, or --unfinished")
    if name is None:
        gone = clean(config)
        out.data({"removed": list(gone)}, "\n".join(gone) or "Nothing unfinished.")
        return
    chosen = one_of(name, settings_=config)
    refuse_if_used(chosen, config)
    freed = remove(chosen, config)
    out.data(
        {"removed": [f"{chosen.engine} {chosen.version}"], "freed_bytes": freed},
        f"removed {chosen.engine} {chosen.version}: {gb(freed)} freed",
    )


@engine.command()
@click.argument("name", metavar="[ENGINE[==VERSION]]", required=False)
@with_output
def doctor(name: str | None, out: Output) -> None:
    """Try engines: each is imported in its own environment and asked what it is.

    Takes seconds per engine. Exits with 9 when one does not work.
    """
    from qwharf.engines import doctor as physician

    config = settings.load()
    chosen = [one_of(name, settings_=config)] if name else list(engines.installed(settings=config))
    found = []
    for one in chosen:
        out.step("try", f"{one.engine} {one.version} ({one.source}, {one.variant})")
        health = physician.examine(one)
        found.append(health)
        mark = out.style("ok", "green") if health.works else out.style("FAIL", "red")
        text = f"{mark}  {one.engine} {health.version or one.version}"
        text += f"  on {health.device}" if health.device else ""
        if not out.as_json:
            out.data(None, "\n".join([text, *(f"      {p}" for p in health.problems)]))
    if out.as_json:
        out.data(found)
    elif not found:
        out.data(None, "No engine but the embedded llama.cpp; `qwharf doctor` looks after that.")
    if not all(h.works for h in found):
        raise SystemExit(EngineError.exit_code)


# ------------------------------------------------------------------------------------- helpers


def split(name: str) -> tuple[str, str | None]:
    """``vllm==0.32.0`` into its parts."""
    which, equals, version = name.partition("==")
    if which not in engines.ENGINES or (equals and not version):
        raise UsageError(
            name,
            found="no engine of that name" if which not in engines.ENGINES else "no version",
            expected=f"{', '.join(engines.ENGINES)}, or one of them with ==VERSION",
        )
    return which, version or None


def one_of(name: str, *, settings_: settings.Settings) -> Installed:
    """The installation that ``name`` means; qwharf's before others."""
    which, version = split(name)
    found = [x for x in engines.installed(which, settings_) if version in (None, x.version)]
    if not found:
        raise UsageError(
            name, found="not installed", hint=f"`qwharf engine install {which}`, or see `engine ls`"
        )
    own = [x for x in found if x.source == "qwharf"]
    if version is None and len(own) > 1:
        some = ", ".join(f"{x.engine}=={x.version}" for x in own)
        raise UsageError(name, found=f"several: {some}", expected="one of them")
    return (own or found)[0]


def refuse_if_used(chosen: Installed, config: settings.Settings) -> None:
    """Raise a :class:`Conflict` while a deployment may run on ``chosen``."""
    from qwharf.daemon.client import DaemonClient

    client = DaemonClient(config)
    users = [
        d.spec.name
        for d in (client.list() if client.is_running() else [])
        if d.spec.platform == chosen.engine
        and d.spec.engine_version in (None, chosen.version)
        and not (chosen.engine == "llama.cpp" and d.spec.engine_version is None)
    ]
    if users:
        raise Conflict(
            f"{chosen.engine} {chosen.version}",
            found=f"in use by {', '.join(users)}",
            hint=f"`qwharf down {users[0]}` first",
        )


def manifest_of(one: Installed) -> dict[str, Any]:
    """What the manifest says; nothing where there is none."""
    try:
        return read_manifest(one.folder) if one.source == "qwharf" else {}
    except InvalidFile:
        return {}


def record(one: Installed, manifest: dict[str, Any]) -> dict[str, Any]:
    """For ``--json``."""
    kept = ("packages", "size_bytes", "installer", "created_at", "engine_version", "seen")
    fields = {f: getattr(one, f) for f in Installed.__dataclass_fields__}
    return {
        **fields,
        **{k: manifest.get(k) for k in kept},
        "python_version": manifest.get("python"),
    }


def facts(manifest: dict[str, Any]) -> str:
    """``151 packages, Python 3.11.7, 2.31 GB``."""
    number = manifest.get("packages")
    parts = [
        count(number, "package") if number else manifest.get("detail"),
        f"Python {manifest['python']}" if manifest.get("python") else None,
        gb(manifest.get("size_bytes")),
    ]
    return ", ".join(str(p) for p in parts if p)


class Status:
    """Shows an installation's progress: one line that changes, or one line a phase."""

    def __init__(self, out: Output) -> None:
        self.out = out
        self.live = out.err.isatty() and not out.as_json and not out.quiet
        self.phase = ""
        self.last = State("")
        self.drawn_at = 0.0

    def __call__(self, state: State) -> None:
        """Take a new state."""
        if state.phase != self.phase:
            self._end_phase()
            self.phase = state.phase
            if not self.live:
                total = count(state.total, "package") if state.total else state.detail
                self.out.step(state.phase, total)
        self.last = state
        now = time.monotonic()
        if self.live and now - self.drawn_at > DRAW_SECONDS:
            self.drawn_at = now
            self.out.err.write(f"\r\033[K{self._line(state)}")
            self.out.err.flush()

    def close(self) -> None:
        """Leave the line."""
        self._end_phase()

    def _end_phase(self) -> None:
        if self.live and self.phase:
            self.out.err.write("\r\033[K")
            self.out.step(self.phase, self._text(self.last))

    def _line(self, state: State) -> str:
        name = self.out.style(f"{state.phase:>8}", "bold", "cyan", err=True)
        text = self._text(state)
        return f"{name}  {text}" + (f"  {state.detail[:60]}" if state.detail != text else "")

    def _text(self, state: State) -> str:
        parts = []
        if state.total:
            parts.append(f"{state.done} of {state.total}")
        elif state.done:
            parts.append(str(state.done))
        if state.fetched_bytes:
            parts.append(gb(state.fetched_bytes))
        return ", ".join(parts) or state.detail
