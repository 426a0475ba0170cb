"""``completion``: the script that teaches a shell our commands."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash:  eval "$(qwharf completion bash)"     in ~/.bashrc
    zsh:   eval "$(qwharf completion zsh)"      in ~/.zshrc
    fish:  qwharf completion fish > ~/.config/fish/completions/qwharf.fish
    """
    from click.shell_completion import get_completion_class

    from qwharf.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - the choice above holds click's own names
    click.echo(made(cli, {}, "qwharf", "_QWHARF_COMPLETE").source())
