"""Shows on the terminal what the pipeline does."""

from __future__ import annotations

from qwharf.cli.output import Output, Progress
from qwharf.types import Check

MARKS = {"pass": ("ok", "green"), "fail": ("FAIL", "red"), "skip": ("skip", "yellow")}


class TerminalObserver:
    """A :class:`qwharf.pipeline.Observer` that prints steps, bars and checks to standard error."""

    def __init__(self, out: Output, bar: Progress, *, every_check: bool = False) -> None:
        self.out = out
        self.bar = bar
        self.every_check = every_check

    def step(self, name: str, text: str) -> None:
        """One line per step."""
        self.bar.close()
        self.out.step(name, text)

    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None:
        """Move the bar."""
        self.bar(label, done_bytes, total_bytes)

    def check(self, check: Check) -> None:
        """One line per check; failures say what they mean."""
        if check.status == "pass" and not self.every_check:
            return
        self.out.note(check_line(self.out, check))


def check_line(out: Output, check: Check, *, err: bool = True) -> str:
    """``ok    tool-call  a tool call has the right name``; a failure in three more lines."""
    mark, color = MARKS[check.status]
    text = f"{out.style(f'{mark:>8}', color, err=err)}  {check.id:<36} {check.title}"
    pad = " " * 10
    if check.status == "fail":
        text += f"\n{pad}found     {check.found}\n{pad}expected  {check.expected}"
        text += f"\n{pad}so        {check.meaning}"
    elif check.status == "skip":
        text += f" ({check.meaning})"
    return text
