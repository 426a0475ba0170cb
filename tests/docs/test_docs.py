"""The documentation holds: links lead somewhere, commands exist, options are real."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from qwharf.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    p
    for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("training/*.md")]
    if p.name != "CHANGELOG.md"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    found = set()
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("#"):
            text = line.lstrip("#").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def commands(page: Path) -> Iterator[list[str]]:
    """Every ``qwharf …`` line of a page's code blocks, as words."""
    for block in FENCE.findall(page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            found = re.match(r"(?:[A-Z_]+=\S+ )*qwharf (.*)", line)
            if found and not line.startswith("qwharf up MODEL ["):
                text = re.split(r"\s+#|\s{3,}|[|;]|&&", found.group(1))[0]
                yield shlex.split(text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{name_of(page)} links to {target}"
        if anchor and aim.suffix == ".md":
            assert anchor in anchors(aim), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    for words in commands(page):
        parse(cli, list(words), page)


def parse(command: click.Command, words: list[str], page: Path) -> None:
    """Let click parse the words down the tree, without running anything."""
    shown = f"{name_of(page)}: qwharf {' '.join(words)}"
    if any(w in ("[…]", "…") or w.startswith("[") for w in words) or set(words) & {"-h", "--help"}:
        return
    while isinstance(command, click.Group):
        rest = [w for w in words if w not in ("--version",)]
        if not rest:
            return
        name = rest[0]
        context = click.Context(command)
        child = command.get_command(context, name)
        assert child is not None, f"{shown}: no command `{name}`"
        command, words = child, rest[1:]
    try:
        command.make_parser(click.Context(command)).parse_args(words)
    except click.UsageError as e:
        pytest.fail(f"{shown}: {e.message}")


def test_the_pages_hold_commands_at_all() -> None:
    """So that a change of layout cannot make the tests above pass by finding nothing."""
    assert len([c for page in PAGES for c in commands(page)]) > 20


def test_the_readme_fits_a_page_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make run" in text
    assert "make test" in text
    assert len(text.splitlines()) < 150


def test_every_page_of_docs_can_be_found_from_the_readme() -> None:
    todo, seen = [ROOT / "README.md"], set()
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        for target in LINK.findall(page.read_text("utf-8")):
            aim = (page.parent / target.partition("#")[0]).resolve()
            if aim.is_file() and aim.is_relative_to(ROOT):
                todo.append(aim)
    lost = [name_of(p) for p in PAGES if p not in seen]
    assert not lost, f"no link leads to {lost}"


def test_nothing_speaks_of_one_machine() -> None:
    """No absolute path of the machine that this was written on."""
    words = re.compile(r"/(?:root|home/\w+|work/main|tmp/bash)\b")
    for page in PAGES:
        assert not words.search(page.read_text("utf-8")), name_of(page)
