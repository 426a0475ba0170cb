"""docs/verify.md says what the checks say."""

from pathlib import Path

import pytest

from qwharf.verify import CHECKS, page

DOC = Path(__file__).parents[2] / "docs" / "verify.md"


def test_the_page_is_up_to_date() -> None:
    text = DOC.read_text("utf-8")
    assert text == page.updated(text), f"run: python -m qwharf.verify.page {DOC}"


def test_every_check_has_all_its_words() -> None:
    assert len({c.id for c in CHECKS}) == len(CHECKS)
    for each in CHECKS:
        assert each.id == each.id.lower().replace("_", "-")
        assert all((each.title, each.sends, each.expected, each.meaning)), each.id
        assert each.body.__doc__, each.id
        assert f"| **`{each.id}`**" in page.table()


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        page.updated("# verify\n")
