"""Data on standard output, the rest on standard error, JSON alone in JSON mode."""

import io
import json

import pytest

from qwharf.cli.messages import report, sentence
from qwharf.cli.os_errors import typed
from qwharf.cli.output import Output
from qwharf.cli.text import ago, count, gb, gib
from qwharf.errors import InvalidFile, QwharfError, StorageError, UnknownModel
from qwharf.types import Format


def make(**kwargs: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(out=out, err=err, **kwargs), out, err


def test_human_mode() -> None:
    output, out, err = make()
    output.step("plan", "something")
    output.data({"a": 1}, "one")
    assert out.getvalue() == "one\n"
    assert err.getvalue() == "    plan  something\n"


def test_json_mode_prints_json_and_nothing_else() -> None:
    output, out, err = make(as_json=True)
    output.step("plan", "something")
    output.data({"format": Format("gguf", "q8_0"), "name": "Köln"}, "one")
    assert json.loads(out.getvalue()) == {"format": "gguf:q8_0", "name": "Köln"}
    assert "Köln" in out.getvalue()
    assert err.getvalue() == ""


def test_table_aligns_and_shows_unknown_as_a_dash() -> None:
    output, _, _ = make()
    text = output.table(["name", "size"], [["a", 1], ["longer", 22], ["x", None]], right={"size"})
    assert text == "name    size\na          1\nlonger    22\nx          -"


def test_a_pipe_gets_no_colour_and_no_bar() -> None:
    output, _, err = make()
    assert output.style("x", "red") == "x"
    with output.progress() as bar:
        bar("file", 1, 2)
    assert err.getvalue() == ""


def test_an_error_is_a_sentence_with_facts() -> None:
    error = InvalidFile("a.gguf", found="magic b'PK'", expected="b'GGUF'", hint="fetch it again")
    assert sentence(error) == "not a valid file: `a.gguf`: found magic b'PK'; expected b'GGUF'"
    shape = report(error)["error"]
    assert shape["code"] == "invalid_file"
    assert shape["exit_code"] == 4
    assert shape["hint"] == "fetch it again"


def test_every_error_has_an_exit_code_and_a_line_in_the_docs() -> None:
    from pathlib import Path

    table = Path(__file__).parents[2].joinpath("docs", "cli.md").read_text("utf-8")
    todo: list[type[QwharfError]] = [*QwharfError.__subclasses__()]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        row = f"`{cls('x').code}`"
        assert any(
            line.startswith(f"| {cls.exit_code} |") and row in line for line in table.splitlines()
        ), f"docs/cli.md lacks {row} at exit code {cls.exit_code}"


def test_errors_of_the_system_become_ours() -> None:
    import errno

    error = typed(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert isinstance(error, StorageError)
    assert error.subject == "/x/y"
    assert "gc" in error.hint


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (gib(2**30), "1.0 GiB"),
        (gib(None), "?"),
        (gib(2**20), "1.0 MiB"),
        (gb(5_027_783_488), "5.03 GB"),
        (gb(999), "1.0 kB"),
        (count(1, "check"), "1 check"),
        (count(2, "check"), "2 checks"),
        (ago(0, 90), "2 min"),
        (ago(None), "-"),
    ],
)
def test_numbers_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


def test_unknown_model_carries_suggestions() -> None:
    error = UnknownModel("qwen3:9b", suggestions=["qwen3:8b"])
    assert report(error)["error"]["facts"] == {"suggestions": ["qwen3:8b"]}
