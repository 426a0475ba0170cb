"""The table of checks in ``docs/verify.md``, written from the checks' own words.

``python -m qwharf.verify.page docs/verify.md`` rewrites what stands between the two markers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qwharf.verify import CHECKS, CheckFunction
from qwharf.verify.contract import ANY

BEGIN = "<!-- checks: generated, see src/qwharf/verify/page.py -->"
END = "<!-- end of checks -->"


def table() -> str:
    """All checks as Markdown: id and kinds, what is sent, what must hold, what a failure means."""
    rows = [
        "| check | what it sends | what must hold | what a failure means |",
        "|---|---|---|---|",
    ]
    for each in CHECKS:
        cells = (f"**`{each.id}`**<br>{_for(each)}", each.sends, each.expected, each.meaning)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def _for(each: CheckFunction) -> str:
    kinds = "" if each.thinking == ANY else f"{', '.join(sorted(each.thinking))} only"
    needs = f"needs {', '.join(each.needs)}" if each.needs else ""
    return "; ".join(filter(None, (each.title, kinds, needs)))


def updated(page: str) -> str:
    """``page`` with the table between the markers written anew.

    Raises:
        ValueError: a marker is missing.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the markers {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def main(path: Path) -> None:
    """Rewrite the page at ``path``."""
    path.write_text(updated(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
