"""``up``, ``down``, ``ps`` and ``logs``: deployments from start to end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from qwharf import pipeline, settings
from qwharf.cli.fit import memory_sum
from qwharf.cli.messages import sentence
from qwharf.cli.observer import TerminalObserver
from qwharf.cli.options import (
    adapter_option,
    complete_deployments,
    context_option,
    format_option,
    hardware_option,
    hub_option,
    kv_cache_option,
    model_argument,
    name_argument,
    no_gpu_option,
    parallel_option,
    platform_option,
    with_output,
)
from qwharf.cli.output import Output
from qwharf.cli.text import ago, count, gb, gib, harmless, tokens
from qwharf.daemon.client import DaemonClient
from qwharf.errors import CopyNeeded
from qwharf.fit import Wishes
from qwharf.formats.names import parse_format
from qwharf.memory import weight_bytes
from qwharf.platforms import Step
from qwharf.types import Deployment, Launch


@click.command()
@model_argument
@platform_option
@format_option
@context_option
@parallel_option
@kv_cache_option
@no_gpu_option
@click.option("--name", help="Name of the deployment; default: made from the model's.")
@adapter_option
@hub_option
@hardware_option
@click.option(
    "--copy", "may_copy", is_flag=True, help="Let a service have its own copy where no link leads."
)
@click.option("--dry-run", is_flag=True, help="Print plan, bytes and engine command; do nothing.")
@with_output
def up(
    model: str,
    platform: str | None,
    format_text: str | None,
    context: int | None,
    parallel: int,
    kv_cache: Any,
    no_gpu: bool,
    name: str | None,
    adapters: dict[str, Path],
    hub: Any,
    spec: Path | None,
    may_copy: bool,
    dry_run: bool,
    out: Output,
) -> None:
    """Deploy MODEL and prove that it behaves like Qwen3.

    MODEL is a name such as qwen3:8b or Qwen/Qwen3-8B-AWQ, a checkpoint folder, or a .gguf file.

    \b
    Examples:
      qwharf up pocket
      qwharf up qwen3:8b --format gguf:q4_k_m --context 16384
      qwharf up ./my-finetune --name mine
      qwharf up qwen3:8b --platform vllm --format awq
      qwharf up qwen3:8b --adapter law=./law-lora --adapter tax=./tax-lora
      qwharf up qwen3:30b-a3b --platform sglang --hardware two-h100.toml --dry-run

    Exit codes: 0 deployed and proven; 10 deployed, but a check failed; others: docs/cli.md.
    """
    config = settings.load()
    request = pipeline.Request(
        model=model,
        name=name,
        adapters=adapters,
        hub=hub,
        may_copy=may_copy,
        wishes=Wishes(
            platform=platform,
            format=parse_format(format_text) if format_text else None,
            context_tokens=context,
            parallel=parallel,
            kv_cache_type=kv_cache,
            adapters=bool(adapters),
            gpu=not no_gpu,
        ),
    )
    if dry_run:
        preview(request, config, spec, out)
        return
    if spec is not None:
        raise click.UsageError("--hardware plans for another machine: add --dry-run.")
    outcome = deploy_and_show(request, config, out)
    out.data(
        {
            "deployment": outcome.deployment,
            "plan": outcome.plan,
            "artifact": outcome.artifact,
            "report": outcome.report,
        },
        next_steps(outcome.deployment),
    )


def deploy_and_show(
    request: pipeline.Request, config: settings.Settings, out: Output
) -> pipeline.Outcome:
    """Run the pipeline, showing each step; ask, where somebody can answer, before it copies."""
    try:
        with out.progress() as bar:
            outcome = pipeline.up(request, config, TerminalObserver(out, bar))
    except CopyNeeded as e:
        if out.as_json or not sys.stdin.isatty():
            raise
        out.note(f"{sentence(e)}.")
        click.confirm(f"Copy {gb(e.facts['copy_bytes'])}?", abort=True, err=True)
        return deploy_and_show(replace(request, may_copy=True), config, out)
    states = [c.status for c in outcome.report.checks]
    skipped = f", {states.count('skip')} did not apply" if "skip" in states else ""
    out.step("proven", f"{count(states.count('pass'), 'check')} passed{skipped}")
    return outcome


def program() -> str:
    """How the user can call us again: ``qwharf`` when it is on the PATH, else where it lies."""
    here = Path(sys.argv[0])
    found = shutil.which("qwharf")
    if found is not None and (here.name != "qwharf" or Path(found).resolve() == here.resolve()):
        return "qwharf"
    if here.name != "qwharf":
        return "python -m qwharf"
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)


def next_steps(deployment: Deployment) -> str:
    """What to do with a fresh deployment: endpoint, curl, chat, stop."""
    name, me = deployment.spec.name, program()
    rows = [
        (f"{me} chat {name}", "talk to it"),
        *((f"{me} chat {a}", "talk to it with that adapter") for a in deployment.spec.adapters),
        (f"{me} ps", "see what runs"),
        (f"{me} down {name}", "stop it"),
        (f"{me} down --daemon", "stop everything"),
    ]
    width = max(len(command) for command, _ in rows)
    return (
        f"\n`{name}` answers at {deployment.base_url}\n\n"
        f"  curl {deployment.base_url}/chat/completions -H 'content-type: application/json' \\\n"
        f'    -d \'{{"model": "{name}", "messages": '
        f'[{{"role": "user", "content": "What is 2+2?"}}]}}\'\n\n'
        + "\n".join(f"  {command:<{width}}   {what}" for command, what in rows)
    )


def preview(
    request: pipeline.Request, config: settings.Settings, machine: Path | None, out: Output
) -> None:
    """``--dry-run``: what would happen, in numbers; touches nothing."""
    dry = pipeline.rehearse(request, config, machine)
    origin = dry.source
    format = dry.plan.format
    size = {"store": "in the store already", "disk": "on this disk"}.get(
        origin.kind, f"{fetched(dry)} to fetch"
    )
    converts = f"\nconvert   {origin.format} to {format}" if origin.converts_to(format) else ""
    launch = dry.actions if isinstance(dry.actions, Launch) else None
    out.data(
        {
            "plan": dry.plan,
            "source": {
                "kind": origin.kind,
                "where": origin.where,
                "format": origin.format,
                "download_bytes": origin.download_bytes,
                "converts": origin.converts_to(format),
            },
            "spec": dry.spec,
            "launch": launch,
            "steps": None if launch else dry.actions,
            "memory_bytes": dry.plan.memory_bytes(),
        },
        f"plan      {pipeline.describe(dry.plan)}\n"
        + "".join(f"          {reason}\n" for reason in dry.plan.reasons)
        + memory_sum(dry.plan, out)
        + f"\nget       {origin.where} ({size}){converts}\n"
        + described(dry.actions)
        + "\nverify    the Qwen3 contract",
    )


def fetched(dry: pipeline.Rehearsal) -> str:
    """How much will be fetched: of most repositories only the weights' size is known."""
    if dry.source.download_bytes is not None:
        return gb(dry.source.download_bytes)
    return f"about {gb(weight_bytes(dry.plan.model.architecture, dry.source.format))}"


def described(actions: pipeline.Actions) -> str:
    """The command that starts an engine, to be pasted into a shell; or what is done to a service,
    one step after another.
    """
    if isinstance(actions, Launch):
        lines = [" ".join(f"{k}={shlex.quote(v)}" for k, v in sorted(actions.env.items()))]
        lines = [*filter(None, lines), ""]
        for word in map(shlex.quote, actions.argv):
            if word.startswith("--") and lines[-1]:  # begins a line; what belongs to it follows
                lines.append(word)
            else:
                lines[-1] = f"{lines[-1]} {word}".strip()
        return "run       " + " \\\n            ".join(lines)
    return "\n".join(_step(step) for step in actions)


def _step(step: Step) -> str:
    text = f"{step.what:<9} {step.where}"
    if step.content is None:
        return text
    body = step.content
    if not isinstance(body, str):
        body = json.dumps(body, indent=2, ensure_ascii=False, default=str)
    return text + "".join(f"\n          {line}" for line in body.splitlines())


@click.command()
@click.argument("names", nargs=-1, shell_complete=complete_deployments)
@click.option("--all", "everything", is_flag=True, help="Stop all deployments.")
@click.option("--daemon", is_flag=True, help="Stop everything, the daemon too.")
@with_output
def down(names: tuple[str, ...], everything: bool, daemon: bool, out: Output) -> None:
    """Stop deployments by NAME. Weights stay in the store."""
    client = DaemonClient(settings.load())
    if not names and not everything and not daemon:
        raise click.UsageError("Name a deployment, or say --all.")
    running = client.is_running()
    stopped = list(names)
    if not names and running:
        stopped = [d.spec.name for d in client.list()]
    for name in stopped:
        client.remove(name)
        out.step("down", f"`{name}` stopped")
    if daemon and running:
        client.shutdown()
        out.step("down", "the daemon stopped")
    out.data({"stopped": stopped, "daemon_stopped": daemon})


@click.command()
@with_output
def ps(out: Output) -> None:
    """List deployments: state, size, context, address."""
    client = DaemonClient(settings.load())
    deployments = client.list() if client.is_running() else []
    rows = [
        [
            d.spec.name,
            d.spec.model,
            d.spec.format,
            d.spec.platform,
            d.state,
            {"pass": "yes", "fail": "NO"}.get(d.verified or "", "-"),
            tokens(d.spec.context_tokens),
            gib(d.rss_bytes) if d.rss_bytes else "-",
            d.pid,
            ago(d.ready_at),
            d.base_url,
        ]
        for d in deployments
    ]
    human = out.table(
        [
            "name",
            "model",
            "format",
            "platform",
            "state",
            "proven",
            "context",
            "memory",
            "pid",
            "up for",
            "address",
        ],
        rows,
        right={"context", "memory", "pid"},
    )
    out.data(deployments, human if rows else "Nothing is deployed. Try: qwharf up pocket")


@click.command()
@name_argument
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Lines to show from the end.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on as new lines come.")
@with_output
def logs(name: str, tail: int, follow: bool, out: Output) -> None:
    """Show what the engine of NAME said."""
    for line in DaemonClient(settings.load()).logs(name, tail=tail, follow=follow):
        out.line({"line": line}, harmless(line) if out.is_terminal else line)
