"""A platform's file that breaks a rule is refused, with the place and what was expected."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.compatibility.reader import read
from qwharf.errors import InvalidFile

GOOD = """
schema = 1
title = "Engine"
[version]
any = "1.0"
[preference]
cpu = 1
nvidia = 2
[kv_cache_types]
any = ["f16"]
[adapters]
runs = false
why = "it cannot"
sure = "inferred"
source = "its wording"
[[cell]]
formats = ["gguf:*"]
on = ["cpu"]
sure = "seen"
source = "it was run"
[[cell]]
formats = ["gguf:*"]
on = ["nvidia"]
least = "7.5"
sure = "read"
source = "its source"
"""


def written(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "engine.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_good_file(tmp_path: Path) -> None:
    facts = read(written(GOOD, tmp_path))
    assert facts.name == "engine"
    assert facts.version("nvidia") == "1.0"
    assert facts.kv_types("cpu") == ("f16",)
    assert not facts.adapters.runs
    assert facts.cells[1].least == (7, 5)
    assert facts.serves("nvidia")
    assert not facts.serves("apple")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 1", "schema = 2", "schema"),
        ('title = "Engine"', 'titel = "Engine"', "titel"),
        ('title = "Engine"', "title = 3", "title"),
        ('any = "1.0"', 'gpu = "1.0"', "gpu"),
        ('any = "1.0"', 'apple = "1.0"', "version"),
        ('any = "1.0"', 'any = "1.0"\nleast = "0.5"', "why"),
        ("nvidia = 2", "nvidia = 0", "nvidia"),
        ("nvidia = 2", "", "preference"),
        ("nvidia = 2", "nvidia = 2\napple = 3", "preference"),
        ('any = ["f16"]', 'any = ["f15"]', "kv_cache_types"),
        ('any = ["f16"]', 'cpu = ["f16"]', "kv_cache_types"),
        ("runs = false", "runs = 0", "runs"),
        ('why = "it cannot"', "", "why"),
        ('sure = "inferred"', "", "sure"),
        ('source = "its wording"', 'sauce = "x"', "sauce"),
        ('on = ["cpu"]', 'on = ["gpu"]', "on"),
        ('on = ["cpu"]', "on = []", "on"),
        ('on = ["cpu"]', 'on = ["cpu", "cpu"]', "once"),
        ('on = ["cpu"]', 'on = ["cpu", "nvidia"]', "one cell for each combination"),
        ('on = ["cpu"]', 'on = ["cpu"]\nleast = "7.5"', "nvidia alone"),
        ('on = ["cpu"]', 'on = ["cpu"]\nruns = false', "why"),
        ('on = ["cpu"]', 'on = ["cpu"]\nshapes = ["round"]', "shapes"),
        ('on = ["cpu"]', 'on = ["cpu"]\nsystems = ["DOS"]', "systems"),
        ('on = ["cpu"]', 'on = ["cpu"]\nslice = 0', "slice"),
        ('on = ["cpu"]', 'on = ["cpu"]\nslice = true', "slice"),
        ('formats = ["gguf:*"]\non = ["cpu"]', 'formats = ["onnx:*"]\non = ["cpu"]', "formats"),
        ('formats = ["gguf:*"]\non = ["cpu"]', 'formats = "gguf:*"\non = ["cpu"]', "formats"),
        ('least = "7.5"', "least = 7.5", "least"),
        ('least = "7.5"', 'least = "7.5"\nbelow = "7.0"', "below"),
        ('sure = "seen"', 'sure = "certain"', "sure"),
        ('source = "it was run"', 'source = ""', "source"),
        ('source = "it was run"', "", "source"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(InvalidFile) as error:
        read(written(GOOD.replace(old, new, 1), tmp_path))
    assert "engine.toml" in error.value.subject
    assert says in f"{error.value.found} {error.value.expected}"


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile):
        read(tmp_path / "none.toml")
    with pytest.raises(InvalidFile):
        read(written("= =", tmp_path))


def test_ranges_that_touch_do_not_overlap(tmp_path: Path) -> None:
    more = GOOD.replace('least = "7.5"', 'least = "7.5"\nbelow = "8.9"') + (
        '[[cell]]\nformats = ["gguf:*"]\non = ["nvidia"]\nleast = "8.9"\nsure = "read"\n'
        'source = "its source"\n'
    )
    assert len(read(written(more, tmp_path)).cells) == 3
    with pytest.raises(InvalidFile, match="2 and 3"):
        read(written(more.replace('below = "8.9"', 'below = "9.0"'), tmp_path))


def test_versions_keep_cells_apart(tmp_path: Path) -> None:
    more = GOOD.replace('on = ["cpu"]', 'on = ["cpu"]\nuntil = "2.0"') + (
        '[[cell]]\nformats = ["gguf:q8_0"]\non = ["cpu"]\nsince = "2.0"\nsure = "read"\n'
        'source = "its source"\n'
    )
    assert len(read(written(more, tmp_path)).cells) == 3
    with pytest.raises(InvalidFile):
        read(written(more.replace('since = "2.0"', 'since = "1.9"'), tmp_path))


@given(st.integers(0, len(GOOD) - 1), st.text(max_size=3))
def test_no_change_escapes_as_another_error(place: int, put: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.toml"
        path.write_text(GOOD[:place] + put + GOOD[place + 1 :], "utf-8", errors="replace")
        try:
            read(path)
        except InvalidFile as error:
            assert error.found
