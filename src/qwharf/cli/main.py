"""The command line: a table of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
import os
import sys

import click

from qwharf import __version__
from qwharf.errors import QwharfError

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:attribute, one line for the list)
    "up": ("deploy:up", "Deploy a model: plan, get, convert, start, prove"),
    "add": ("add:add", "Adopt a server that somebody else started"),
    "down": ("deploy:down", "Stop deployments"),
    "ps": ("deploy:ps", "List deployments"),
    "logs": ("deploy:logs", "Show what an engine said"),
    "chat": ("chat:chat", "Talk to a deployment"),
    "verify": ("verify:verify", "Check a deployment against the Qwen3 contract"),
    "models": ("models:models", "List the Qwen3 family"),
    "show": ("models:show", "Show everything known about one model"),
    "fit": ("fit:fit", "Show what fits this machine, by arithmetic"),
    "platforms": ("platforms:platforms", "Show the platforms, and what runs on them here"),
    "pull": ("get:pull", "Fetch weights from a hub into the store"),
    "convert": ("get:convert", "Convert weights to another format"),
    "imatrix": ("imatrix:imatrix", "Measure which columns of the weights matter"),
    "inspect": ("inspect:inspect", "Show what is in a file or folder of weights"),
    "fidelity": ("fidelity:fidelity", "Measure how far a converted model is from its source"),
    "store": ("store:store", "Look after the files on disk"),
    "engine": ("engine:engine", "Install engines in environments of their own"),
    "serve": ("serve:serve", "Run the daemon in the foreground"),
    "doctor": ("doctor:doctor", "Show hardware, folders and problems"),
    "completion": ("completion:completion", "Print a shell completion script"),
    "dev": ("dev:dev", "Tools for developers and tests"),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"qwharf.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for ``--help``."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one gets suggestions."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else " See `qwharf --help`."
            raise click.UsageError(f"There is no command `{args[0]}`.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: qwharf up pocket    (docs/ has the rest; exit codes: docs/cli.md)",
)
@click.version_option(__version__, message="qwharf %(version)s")
def cli() -> None:
    """Take Qwen3 from weights to a running local deployment, with proof that it works."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    try:
        code = cli.main(argv, prog_name="qwharf", standalone_mode=False)
    except click.exceptions.Abort:
        _say("interrupted")
        code = 130
    except KeyboardInterrupt:
        _say("interrupted")
        code = 130
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except QwharfError as e:
        code = _report(e, as_json="--json" in (sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        # The reader of a pipe went away (`qwharf ps | head -1`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as e:
        from qwharf.cli.os_errors import typed

        code = _report(typed(e), as_json="--json" in (sys.argv[1:] if argv is None else argv))
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: QwharfError, *, as_json: bool) -> int:
    from qwharf.cli.messages import report, sentence
    from qwharf.cli.output import Output

    output = Output(as_json=as_json)
    if as_json:
        output.data(report(error))
    else:
        red = output.style("error:", "bold", "red", err=True)
        output.note(f"{red} {sentence(error)}")
        if error.hint:
            output.note(f"\n{output.style('hint:', 'bold', err=True)} {error.hint}")
    if os.environ.get("QWHARF_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    return error.exit_code


def _say(text: str) -> None:
    sys.stderr.write(f"\n{text}\n")
