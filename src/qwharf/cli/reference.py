"""The command reference, generated from ``--help`` so that the two cannot differ."""

from __future__ import annotations

from collections.abc import Iterator

import click

HEAD = """# Commands

Generated from `--help` by `make docs`; do not edit.
Exit codes and JSON shapes: [cli.md](../cli.md).
"""


def command_reference() -> str:
    """Every command's help as one Markdown page."""
    from qwharf.cli.main import cli

    parts = [HEAD]
    for words, command in walk(cli, ("qwharf",)):
        context = click.Context(command, info_name=" ".join(words), max_content_width=96)
        context.terminal_width = 96
        context.help_option_names = ["-h", "--help"]
        parts.append(f"## {' '.join(words)}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def walk(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and all below it, depth first, in the order of the table."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from walk(child, (*words, name))
