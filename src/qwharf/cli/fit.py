"""``fit``: what runs on this machine, by arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qwharf import catalog, hardware, settings
from qwharf import fit as fitting
from qwharf.cli.options import (
    complete_models,
    context_option,
    format_option,
    hardware_option,
    kv_cache_option,
    no_gpu_option,
    parallel_option,
    platform_option,
    with_output,
)
from qwharf.cli.output import Output
from qwharf.cli.text import gib, tokens
from qwharf.fit import Means, Wishes
from qwharf.formats.names import parse_format
from qwharf.types import Hardware, Plan


@click.command()
@click.argument("model", required=False, shell_complete=complete_models)
@hardware_option
@platform_option
@format_option
@context_option
@parallel_option
@kv_cache_option
@no_gpu_option
@click.option("--all", "everything", is_flag=True, help="Show every fit, not the best per model.")
@with_output
def fit(
    model: str | None,
    spec: Path | None,
    platform: str | None,
    format_text: str | None,
    context: int | None,
    parallel: int,
    kv_cache: Any,
    no_gpu: bool,
    everything: bool,
    out: Output,
) -> None:
    """Show what fits, best first: every model, format and platform with its largest context.

    With MODEL, show its memory line by line.

    \b
    Examples:
      qwharf fit
      qwharf fit qwen3:8b --context 32768
      qwharf fit --hardware server.toml --platform vllm
    """
    from qwharf import survey

    machine = hardware.load_spec(spec) if spec else hardware.detect(settings.load().data_dir)
    means = survey.means(None if spec else machine)
    wishes = Wishes(
        platform=platform,
        format=parse_format(format_text) if format_text else None,
        context_tokens=context,
        parallel=parallel,
        kv_cache_type=kv_cache,
        gpu=not no_gpu,
    )
    if model is not None:
        one(model, machine, wishes, means, out)
        return
    shown = fitting.plans(catalog.models(), machine, wishes, means, every=everything)
    rows = [
        [
            p.model.name,
            p.format,
            p.platform,
            tokens(p.context_tokens),
            p.kv_cache_type,
            gib(p.memory_bytes("host")),
            gib(p.memory_bytes("gpu")) if machine.gpus else None,
            p.reasons[0] if p.reasons else "",
        ]
        for p in shown
    ]
    out.note(describe_machine(machine) + "\n")
    out.data(
        {"hardware": machine, "plans": shown},
        out.table(
            ["model", "format", "platform", "context", "KV", "memory", "GPU memory", "why"],
            rows,
            right={"context", "memory", "GPU memory"},
        )
        if rows
        else "Nothing fits with these wishes; `qwharf fit MODEL` with the same options says why.",
    )
    if not everything and shown:
        out.note("\nOther formats and platforms: --all; the sum for one: qwharf fit MODEL")


def one(name: str, machine: Hardware, wishes: Wishes, means: Means, out: Output) -> None:
    """The sum for one model, line by line."""
    from dataclasses import replace

    resolved = catalog.resolve(name)
    if wishes.format is None and resolved.format is not None:
        wishes = replace(wishes, format=resolved.format)
    plan = fitting.choose(resolved.model, machine, wishes, catalog.models(), means)
    out.note(describe_machine(machine) + "\n")
    out.data(
        {"hardware": machine, "plan": plan, "memory_bytes": plan.memory_bytes()},
        f"{plan.model.title} as {plan.format} on {plan.platform}, "
        f"{tokens(plan.context_tokens)} tokens of context, KV cache {plan.kv_cache_type}\n\n"
        + memory_sum(plan, out)
        + split(plan)
        + "".join(f"\n  - {reason}" for reason in plan.reasons),
    )


def memory_sum(plan: Plan, out: Output) -> str:
    """The memory of a plan, line by line, with its total."""
    rows = [[x.label, gib(x.size_bytes), x.where, x.formula] for x in plan.memory]
    rows.append(["sum", gib(plan.memory_bytes()), "", ""])
    table = out.table(["memory", "size", "where", "how"], rows, right={"size"})
    return "\n".join(f"  {line}" for line in table.splitlines())


def split(plan: Plan) -> str:
    """How the sum is shared out, where some of it is on a GPU."""
    gpu = plan.memory_bytes("gpu")
    return f"\n  of which {gib(plan.memory_bytes('host'))} host, {gib(gpu)} gpu" if gpu else ""


def describe_machine(machine: Hardware) -> str:
    """``Linux x86_64, 2 cores, 21.4 of 23.0 GiB free, no GPU``."""
    gpus = ", ".join(f"{g.name} {gib(g.memory_total_bytes)}" for g in machine.gpus) or "no GPU"
    cores = machine.cpu.usable_cores
    return (
        f"{machine.source}: {machine.system} {machine.cpu.machine}, "
        f"{'?' if cores is None else f'{cores:g}'} cores, "
        f"{gib(machine.memory_available_bytes)} of {gib(machine.memory_total_bytes)} memory free, "
        f"{gpus}"
    )
