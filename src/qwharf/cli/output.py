"""One object that all commands print through.

Data goes to standard output, everything else (steps, progress, hints, errors) to standard error.
In ``--json`` mode standard output holds JSON and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from qwharf.codec import encode

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Output:
    """Where and how to print; made once per run from ``--json``, ``NO_COLOR`` and the terminal."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self.is_terminal = self.out.isatty()
        self.color_out = self.is_terminal and not plain
        self.color_err = self.err.isatty() and not plain

    def style(self, text: str, *names: str, err: bool = False) -> str:
        """``text`` in the given styles, or as it is where colour is not wanted."""
        if not (self.color_err if err else self.color_out):
            return text
        return f"\033[{';'.join(STYLES[n] for n in names)}m{text}\033[0m"

    # ---- data, to standard output

    def data(self, value: Any, human: str | None = None) -> None:
        """Print ``value``: JSON in JSON mode, else the ``human`` text (no text: nothing)."""
        if self.as_json:
            self.out.write(json.dumps(encode(value), indent=2, ensure_ascii=False) + "\n")
        elif human is not None:
            self.out.write(human + "\n")
        self.out.flush()

    def line(self, value: Any, human: str) -> None:
        """One record of a stream: a JSON line, or a line of text."""
        if self.as_json:
            human = json.dumps(encode(value), ensure_ascii=False)
        self.out.write(human + "\n")
        self.out.flush()

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        right: Collection[str] = (),
    ) -> str:
        """A table as text: columns as wide as their cells, two spaces apart, no rulers.

        ``right`` names the columns to align right; ``None`` is printed as ``-``.
        """
        cells = [list(columns), *[["-" if c is None else str(c) for c in row] for row in rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        lines = []
        for n, row in enumerate(cells):
            padded = [
                cell.rjust(width) if name in right else cell.ljust(width)
                for name, cell, width in zip(columns, row, widths, strict=True)
            ]
            text = "  ".join(padded).rstrip()
            lines.append(self.style(text, "bold") if n == 0 else text)
        return "\n".join(lines)

    # ---- everything else, to standard error

    def note(self, text: str = "") -> None:
        """A remark for a person; silent in JSON and quiet mode."""
        if not self.as_json and not self.quiet:
            self.err.write(text + "\n")
            self.err.flush()

    def step(self, name: str, text: str) -> None:
        """One step of long work: ``plan  …``."""
        self.note(f"{self.style(f'{name:>8}', 'bold', 'cyan', err=True)}  {text}")

    def warn(self, text: str) -> None:
        """A warning; shown in JSON mode too, since it goes to standard error."""
        self.err.write(f"{self.style('warning:', 'bold', 'yellow', err=True)} {text}\n")
        self.err.flush()

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar for a ``(label, done, total)`` callback; nothing is drawn for programs."""
        bar = Progress(self)
        try:
            yield bar
        finally:
            bar.close()


class Progress:
    """Draws ``(label, done_bytes, total_bytes)`` reports as one bar per label."""

    def __init__(self, output: Output) -> None:
        self.active = output.err.isatty() and not output.as_json and not output.quiet
        self.err = output.err
        self.label: str | None = None
        self.bar: Any = None

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show that ``done`` of ``total`` bytes of ``label`` are finished."""
        if not self.active:
            return
        if label != self.label:
            self.close()
            from tqdm import tqdm

            self.label = label
            self.bar = tqdm(
                total=total,
                initial=done,  # what an earlier run did says nothing about the rate
                desc=f"{'':>10}{label[:40]}",
                unit="B",
                unit_scale=True,
                leave=False,
                file=self.err,
                dynamic_ncols=True,
            )
        self.bar.total = total
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
        self.bar = self.label = None
