"""The shipped model in Q8_0 on the embedded engine, on held-out prompts at temperature 0.

The numbers are floors under what the shipped model reaches, with room for chance in small samples,
so that a conversion or an engine that spoils it is noticed. They are not the aims: docs/pocket.md
has those, beside the full score (``python -m training score``), and says where it falls short.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from training.score import TABLE, engine, score_skill

from qwharf.artifacts.convert import convert
from qwharf.catalog.pocket import FOLDER
from qwharf.types import Format

pytestmark = pytest.mark.engines
SKILLS = {s.name: s for s in TABLE}
COUNT, SEED, SLOTS = 30, 99, 2


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    gguf: Path = tmp_path_factory.mktemp("pocket") / "pocket.gguf"
    convert(FOLDER, Format("gguf", "q8_0"), gguf, name="pocket")
    with engine(gguf, slots=SLOTS) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("thinks by default", 29),
        ("enable_thinking=false", 29),
        ("/no_think", 29),
        ("/think", 29),
        ("last switch wins", 29),
        ("tool call", 26),
        ("tool call, thinking", 25),
        ("two calls in one turn", 20),
        ("result used", 27),
        ("fact of an earlier turn", 25),
        ("next call after a result", 17),
        ("facts", 25),
        ("JSON reply", 25),
    ],
)
def test_skill(port: int, name: str, least: int) -> None:
    row = score_skill(port, SKILLS[name], COUNT, SEED, slots=SLOTS)
    assert row.right >= least, row.misses
