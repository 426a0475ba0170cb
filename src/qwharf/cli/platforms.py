"""``platforms``: what can run a model here, what runs on it, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwharf import compatibility, hardware, settings
from qwharf.cli.options import complete_platforms, hardware_option, with_output
from qwharf.cli.output import Output
from qwharf.compatibility import Cell, Device
from qwharf.errors import UsageError
from qwharf.formats.names import FORMATS
from qwharf.platforms.base import Availability
from qwharf.types import Hardware

SHAPES = {False: "dense", True: "moe"}


@click.command()
@click.argument("name", required=False, shell_complete=complete_platforms)
@hardware_option
@with_output
def platforms(name: str | None, spec: Path | None, out: Output) -> None:
    """Show the platforms: installed or not, and which formats each runs on this hardware.

    With NAME, show every fact that is known of one, with its source: seen (it was run), read (in
    its source or documentation), inferred (it follows from one of those).

    \b
    Examples:
      qwharf platforms
      qwharf platforms vllm
      qwharf platforms --hardware two-h100.toml
    """
    machine = hardware.load_spec(spec) if spec else hardware.detect(settings.load().data_dir)
    if name is not None:
        one(name, machine, spec is None, out)
        return
    found = [summary(each, machine, spec is None) for each in compatibility.names()]
    rows = [
        [
            x["name"],
            x["version"] or x["speaks_of"] + " (known)",
            {True: "yes", False: "no", None: "?"}[x["installed"]],
            x["device"],
            shown(x["formats"]) or "nothing",
        ]
        for x in found
    ]
    out.data(
        found,
        out.table(["platform", "version", "installed", "on", "formats here"], rows)
        + "".join(
            f"\n{x['name']}: {x['reason']}; {x['hint']}" for x in found if x["installed"] is False
        )
        + "\n\nThe facts behind it, with their sources: qwharf platforms NAME",
    )


def summary(name: str, machine: Hardware, here: bool) -> dict[str, Any]:
    """One platform on one machine: is it installed, and what would it run?"""
    facts = compatibility.facts(name)
    found = availability(name) if here else None
    device = device_for(name, machine)
    runs = runs_on(name, device, found.version if found and found.installed else None)
    return {
        "name": name,
        "title": facts.title,
        "installed": None if found is None else found.installed,
        "version": found.version if found else None,
        "speaks_of": facts.version(device.kind),
        "where": found.where if found else None,
        "reason": found.reason if found else "",
        "hint": found.hint if found else "",
        "device": device.kind,
        "formats": runs,
    }


def availability(name: str) -> Availability:
    """What the platform's driver finds; without a driver, that there is none."""
    from qwharf import platforms as drivers

    if name in drivers.names():
        return drivers.get(name).availability()
    return Availability(
        installed=False,
        version=None,
        where=None,
        reason="qwharf does not drive it yet",
        hint="choose another",
    )


def device_for(name: str, machine: Hardware) -> Device:
    """What the platform would compute with: the first of the machine's devices that it serves."""
    facts = compatibility.facts(name)
    every = compatibility.devices(machine)
    return next((d for d in every if facts.serves(d.kind)), every[-1])


def runs_on(name: str, device: Device, version: str | None) -> dict[str, list[str]]:
    """The formats that run, and of which kinds of model."""
    found: dict[str, list[str]] = {}
    for format in FORMATS:
        kinds = [
            shape
            for moe, shape in SHAPES.items()
            if compatibility.lookup(name, format, moe=moe, device=device, version=version).runs
        ]
        if kinds:
            found[str(format)] = kinds
    return found


def shown(runs: dict[str, list[str]]) -> str:
    """``gguf``; ``bf16, awq (dense)``: a container where all of it runs, else the quantisations."""
    every = list(SHAPES.values())
    parts: list[str] = []
    for container in dict.fromkeys(f.container for f in FORMATS):
        known = [f for f in FORMATS if f.container == container]
        here = {f: runs[str(f)] for f in known if str(f) in runs}
        if len(here) == len(known) and all(kinds == every for kinds in here.values()):
            parts.append(container)
            continue
        parts += [
            f.quantization + ("" if kinds == every else f" ({', '.join(kinds)})")
            for f, kinds in here.items()
        ]
    return ", ".join(parts)


# -------------------------------------------------------------------------------------------- one


def one(text: str, machine: Hardware, here: bool, out: Output) -> None:
    """Every cell of one platform, with its source."""
    name = compatibility.canonical(text)
    if name is None:
        raise UsageError(
            text,
            found="no platform of that name",
            expected=" or ".join(compatibility.names()),
            hint="`qwharf platforms` lists them",
        )
    facts = compatibility.facts(name)
    lora = facts.adapters
    about = summary(name, machine, here)
    rows = [
        [
            ", ".join(f.removeprefix("safetensors:") for f in cell.formats),
            "yes" if cell.runs else "no",
            where(cell),
            cell.sure,
            "; ".join(x for x in (cell.why, cell.source) if x),
        ]
        for cell in facts.cells
    ]
    state = {
        True: f"installed: {about['version']} at {about['where']}",
        False: f"not installed: {about['reason']}; {about['hint']}",
        None: "whether it is installed there is not known",
    }[about["installed"]]
    speaks = ", ".join(
        version if kind == "any" else f"{version} on {kind}"
        for kind, version in facts.versions.items()
    )
    out.data(
        {
            **about,
            "kv_cache_types": facts.kv_cache_types,
            "adapters": facts.adapters,
            "cells": facts.cells,
        },
        f"{facts.title}, {state}\n"
        f"what is known speaks of version {speaks}"
        + (f"; {facts.least_version} at least, as {facts.least_why}" if facts.least_version else "")
        + f"\nhere it runs: {shown(about['formats']) or 'nothing'}"
        + (f"\ncontexts beyond the native one: {'YaRN' if facts.stretches else 'not on request'}")
        + f"\nLoRA adapters by name: {'yes' if lora.runs else f'no, {lora.why}'} "
        + f"({lora.sure}: {lora.source})"
        + "\n\n"
        + out.table(["formats", "runs", "where", "sure", "why and source"], rows),
    )


def where(cell: Cell) -> str:
    """The hardware, system and models of a cell."""
    parts = ["/".join(cell.on)]
    if cell.least or cell.below:
        low = f"{cell.least[0]}.{cell.least[1]}" if cell.least else "0"
        high = f" to below {cell.below[0]}.{cell.below[1]}" if cell.below else " up"
        parts.append(f"capability {low}{high}")
    parts += ["/".join(cell.machines)] if cell.machines else []
    parts += [f"with {' '.join(cell.instructions)}"] if cell.instructions else []
    parts += ["/".join(cell.systems)] if cell.systems else []
    parts += [f"{cell.shapes[0]} only"] if len(cell.shapes) == 1 else []
    return ", ".join(parts)
