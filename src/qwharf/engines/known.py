"""What is known about installing each engine: ``known.toml``, and the choice among its recipes."""

from __future__ import annotations

import platform
import re
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from qwharf import hardware
from qwharf.errors import UsageError

DATA = Path(__file__).with_name("known.toml")
VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,60}")
BY_NVIDIA = {"vllm": "cuda", "sglang": "cuda"}
WITHOUT = {"vllm": "cpu", "sglang": "parser", "mlx": "cpu", "llm-compressor": "cpu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one engine is installed for one kind of hardware; see the head of ``known.toml``."""

    engine: str
    variant: str
    version: str
    requirements: tuple[str, ...]
    pins: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    bare_index: str | None = None
    exclude: tuple[str, ...] = ()
    extra_index: str | None = None
    alias: str | None = None
    pythons: tuple[str, ...]
    systems: tuple[str, ...]
    disk_bytes: int
    seen: str | None = None
    source: str

    @property
    def folder_name(self) -> str:
        """The version under which it is kept; of llama.cpp the variant, as users name it."""
        return self.variant if self.engine == "llama.cpp" else self.version

    def at(self, version: str) -> Recipe:
        """The same for another version, about which nothing is known."""
        if version == self.version:
            return self
        return replace(self, version=version, pins=(), seen=None)

    def filled(self, requirements: tuple[str, ...]) -> tuple[str, ...]:
        """``requirements`` with this version in its place."""
        return tuple(text.replace("{version}", self.version) for text in requirements)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRecipe:
    """Where the sources of llama.cpp come from."""

    version: str
    package: str
    commit: str
    disk_bytes: int
    seen: str | None = None
    source: str


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text("utf-8"))


@cache
def recipes() -> tuple[Recipe, ...]:
    """All recipes, in the order of the file."""
    kept = {f.name for f in fields(Recipe)}
    made = []
    for entry in _data()["recipe"]:
        assert set(entry) <= kept, set(entry) - kept  # noqa: S101 - our own file
        facts: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()
        }
        made.append(Recipe(**facts))
    return tuple(made)


def native() -> NativeRecipe:
    """How llama.cpp is compiled here."""
    return NativeRecipe(**_data()["native"])


def this_system() -> str:
    """``linux-x86_64``, ``darwin-arm64``."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{'x86_64' if machine == 'amd64' else machine}"


def choose(
    engine: str,
    version: str | None = None,
    variant: str | None = None,
    *,
    system: str | None = None,
    nvidia: bool | None = None,
) -> Recipe:
    """The recipe for this machine, or for the one described.

    Args:
        engine: its name.
        version: default: the one known to be good.
        variant: default: CUDA where there is an NVIDIA card, else what computes without one.
        system: as :func:`this_system` has it.
        nvidia: whether there is an NVIDIA card; default: looked for.

    Raises:
        UsageError: there is no such engine, variant or version, or none for this system.
    """
    here = system or this_system()
    if version is not None and not VERSION.fullmatch(version):
        raise UsageError(f"{engine}=={version}", found=version, expected="a version such as 0.32.0")
    of_engine = [r for r in recipes() if r.engine == engine]
    if not of_engine:
        known = dict.fromkeys(r.engine for r in recipes())
        raise UsageError(engine, found="no engine of that name", expected=" or ".join(known))
    wanted = variant or _default_variant(engine, here, nvidia)
    choices = ", ".join(f"--{r.variant}" for r in of_engine)
    chosen = next((r for r in of_engine if r.variant == wanted), None)
    if chosen is None:
        raise UsageError(
            engine, found=f"--{wanted}", expected=choices, hint=_instead(engine, wanted)
        )
    if here not in chosen.systems:
        usable = [r for r in of_engine if here in r.systems]
        raise UsageError(
            f"{engine} ({chosen.variant})",
            found=f"this machine is {here}",
            expected=" or ".join(chosen.systems),
            hint=f"here there is: {', '.join(f'--{r.variant}' for r in usable)}"
            if usable
            else f"{engine} does not run on {here}; `qwharf platforms` shows what does",
        )
    return chosen.at(version) if version else chosen


def _default_variant(engine: str, system: str, nvidia: bool | None) -> str:
    if engine == "mlx" and system.startswith("darwin"):
        return "metal"
    if engine == "llama.cpp":
        raise UsageError(
            engine,
            found="nothing said of what kind",
            expected="--native, --cuda, --vulkan or --rocm",
            hint="plain llama.cpp is part of qwharf: nothing is to be installed for it",
        )
    if engine in BY_NVIDIA:
        if nvidia is None:
            nvidia = any(gpu.vendor == "nvidia" for gpu in hardware.discrete_gpus())
        if nvidia:
            return BY_NVIDIA[engine]
    return WITHOUT[engine]


def _instead(engine: str, variant: str) -> str:
    if engine == "sglang" and variant == "cpu":
        return (
            "SGLang has no published kernels for CPUs: without an NVIDIA card its argument parser "
            "can be installed (--parser), and models served with vllm or llama.cpp"
        )
    return ""
