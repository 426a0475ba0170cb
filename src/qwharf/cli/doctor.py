"""``doctor``: what this machine is, where files lie, what is wrong."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import click

from qwharf import __version__, hardware, platforms, settings
from qwharf.cli.options import with_output
from qwharf.cli.output import Output
from qwharf.cli.text import gb, gib
from qwharf.daemon.client import DaemonClient
from qwharf.types import Hardware

KEY_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "neon",
    "sve",
    "asimddp",
    "i8mm",
)


@click.command()
@click.option("--toml", is_flag=True, help="Print the hardware as a file for `fit --hardware`.")
@with_output
def doctor(toml: bool, out: Output) -> None:
    """Show hardware, versions, folders and problems."""
    config = settings.load()
    machine = hardware.detect(config.data_dir)
    if toml:
        out.data(machine, hardware.to_toml(machine).rstrip())
        return
    problems = find_problems(config, machine)
    running = DaemonClient(config).is_running()
    versions = {
        "qwharf": __version__,
        "python": platform.python_version(),
        "xllamacpp": installed("xllamacpp"),
    }
    tools = {name: shutil.which(name) for name in ("ollama", "lms", "vllm", "nvidia-smi")}
    out.data(
        {
            "hardware": machine,
            "versions": versions,
            "tools": tools,
            "daemon_running": running,
            "folders": {
                "store": config.store_dir,
                "state": config.state_dir,
                "logs": config.log_dir,
            },
            "daemon_url": config.daemon_url,
            "problems": problems,
        },
        describe(machine, config, versions, tools, running, problems, out),
    )


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def find_problems(config: settings.Settings, machine: Hardware) -> list[str]:
    """What will go wrong, in sentences."""
    found = []
    for folder in (config.data_dir, config.state_dir):
        place = next(p for p in [folder, *folder.parents] if p.exists())
        if not os.access(place, os.W_OK):
            found.append(f"`{place}` cannot be written: set QWHARF_HOME to a folder of yours")
    engine = platforms.get("llama.cpp").availability()
    if not engine.installed:
        found.append(f"{engine.reason}: {engine.hint}")
    if (
        machine.cpu.machine in ("x86_64", "AMD64")
        and machine.cpu.instruction_sets
        and ("avx2" not in machine.cpu.instruction_sets)
    ):
        found.append("this CPU has no AVX2, which the embedded engine needs")
    if machine.memory_available_bytes is not None and machine.memory_available_bytes < 2**30:
        found.append(f"only {gib(machine.memory_available_bytes)} of memory is free")
    if machine.disk_free_bytes is not None and machine.disk_free_bytes < 2 * 10**9:
        found.append(f"only {gb(machine.disk_free_bytes)} are free for the store")
    return found


def describe(
    machine: Hardware,
    config: settings.Settings,
    versions: dict[str, str | None],
    tools: dict[str, str | None],
    running: bool,
    problems: list[str],
    out: Output,
) -> str:
    """The same for a person."""
    cpu = machine.cpu
    key = ", ".join(i for i in KEY_INSTRUCTIONS if i in cpu.instruction_sets) or "?"
    limit = f", limited to {gib(machine.memory_limit_bytes)}" if machine.memory_limit_bytes else ""
    cores = "?" if cpu.usable_cores is None else f"{cpu.usable_cores:g}"
    rows: list[tuple[str, object]] = [
        ("system", f"{machine.system} {cpu.machine}"),
        ("processor", f"{cpu.name or '?'}: {cores} usable of {cpu.logical_cores or '?'} cores"),
        ("instructions", key),
        (
            "memory",
            f"{gib(machine.memory_available_bytes)} free of "
            f"{gib(machine.memory_total_bytes)}{limit}"
            + (", shared with the GPU" if machine.unified_memory else ""),
        ),
    ]
    for g in machine.gpus:
        capability = ".".join(map(str, g.compute_capability)) if g.compute_capability else "?"
        rows.append(
            (
                f"GPU {g.index}",
                f"{g.name}: {gib(g.memory_free_bytes)} free of "
                f"{gib(g.memory_total_bytes)}"
                + (f", compute capability {capability}" if g.vendor == "nvidia" else "")
                + (
                    f", {g.bandwidth_bytes_per_second / 1e9:,.0f} GB/s"
                    if g.bandwidth_bytes_per_second
                    else ""
                ),
            )
        )
    if not machine.gpus:
        rows.append(("GPU", "none found"))
    rows += [
        ("disk", f"{gb(machine.disk_free_bytes)} free at {config.store_dir}"),
        ("state", config.state_dir),
        ("daemon", f"{'running' if running else 'not running'}, {config.daemon_url}"),
        ("versions", ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items())),
        ("found", ", ".join(f"{k} ({v})" for k, v in tools.items() if v) or "no other runtimes"),
    ]
    lines = [f"{out.style(f'{k:<12}', 'bold')} {v}" for k, v in rows]
    if problems:
        lines += ["", *(f"{out.style('problem:', 'bold', 'red')} {p}" for p in problems)]
    else:
        lines += ["", out.style("No problems found.", "green")]
    return "\n".join(lines)
