"""``verify``: the Qwen3 contract, on a deployment of ours or on any URL."""

from __future__ import annotations

from pathlib import Path

import click

from qwharf import pipeline, settings
from qwharf.cli.observer import TerminalObserver
from qwharf.cli.options import complete_deployments, with_output
from qwharf.cli.output import Output
from qwharf.cli.text import count
from qwharf.daemon.client import DaemonClient
from qwharf.errors import UsageError, VerificationFailed


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=complete_deployments)
@click.option("--model", "served_name", help="With a URL: the model to ask for.")
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="With a URL: folder or .gguf whose template and tokenizer must be obeyed.",
)
@click.option(
    "--thinking",
    type=click.Choice(["hybrid", "instruct", "thinking"]),
    default="hybrid",
    show_default=True,
    help="With a URL: what kind of model it is.",
)
@click.option("--context", type=int, metavar="N", help="With a URL: the context promised.")
@click.option("--only", multiple=True, metavar="ID", help="Run only this check (repeatable).")
@click.option(
    "--list",
    "list_checks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, param, value: show_list(ctx) if value else None,
    help="List all checks and exit.",
)
@with_output
def verify(
    target: str,
    served_name: str | None,
    checkpoint: Path | None,
    thinking: str,
    context: int | None,
    only: tuple[str, ...],
    out: Output,
) -> None:
    """Check that a deployment behaves like Qwen3.

    \b
    Examples:
      qwharf verify pocket
      qwharf verify http://127.0.0.1:8000/v1 --model qwen3 --checkpoint ./Qwen3-8B
    """
    from qwharf import verify as proof

    config = settings.load()
    unknown = set(only) - {c.id for c in proof.CHECKS}
    if unknown:
        raise UsageError(
            ", ".join(sorted(unknown)), expected="ids of checks", hint="`qwharf verify --list`"
        )
    with out.progress() as bar:
        observer = TerminalObserver(out, bar, every_check=True)
        if target.startswith(("http://", "https://")):
            report = proof.run(
                proof.Target(
                    base_url=target.rstrip("/"),
                    served_name=served_name,
                    api_key=config.api_key,
                    model=served_name or target,
                    thinking=thinking,  # type: ignore[arg-type]
                    context_tokens=context,
                    reference=proof.Reference.load(checkpoint) if checkpoint else None,
                ),
                on_check=observer.check,
                only=only or None,
            )
        else:
            client = DaemonClient(config)
            report = pipeline.prove(client.get(target), client, config, observer, only or None)
    failed = [c.id for c in report.checks if c.status == "fail"]
    passed = [c.id for c in report.checks if c.status == "pass"]
    if failed:
        if out.as_json:
            out.data({"passed": False, "report": report})
            raise SystemExit(VerificationFailed.exit_code)
        raise VerificationFailed(
            target,
            found=f"{count(len(failed), 'check')} of {len(report.checks)} failed: "
            + ", ".join(failed),
            expected="all to pass",
            hint="what each check sends and what its failure means: docs/verify.md",
        )
    skipped = len(report.checks) - len(passed)
    out.data(
        {"passed": True, "report": report},
        f"{count(len(passed), 'check')} passed" + (f", {skipped} did not apply" if skipped else ""),
    )


def show_list(ctx: click.Context) -> None:
    """Print every check and leave."""
    from qwharf import verify as proof

    out = Output()
    click.echo(out.table(["id", "what must hold"], [[c.id, c.title] for c in proof.CHECKS]))
    ctx.exit()
