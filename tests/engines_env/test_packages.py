"""Locks: what is written is what is read; what is no lock is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.engines.packages import (
    Package,
    Resolved,
    are_hashed,
    canonical,
    from_pip_report,
    parse_lock,
    present,
    without,
)
from qwharf.errors import InvalidFile

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)
VERSIONS = st.from_regex(
    r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(\.post[0-9])?(\+[a-z0-9]{1,6})?", fullmatch=True
)
HASHES = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=2).map(tuple)
PACKAGES = st.builds(Package, NAMES, VERSIONS, HASHES)


@given(st.lists(PACKAGES, max_size=4), st.booleans())
def test_a_lock_reads_as_it_was_written(packages: list[Package], extra: bool) -> None:
    indexes = ("https://example.org/whl",) if extra else ()
    text = Resolved(tuple(packages), indexes).text(["engine 1.0 # with a hash sign", "again"])
    assert parse_lock(text) == packages


@given(st.text(max_size=200))
def test_any_text_is_a_lock_or_refused(text: str) -> None:
    try:
        packages = parse_lock(text)
    except InvalidFile:
        return
    assert all(p.name and p.line() for p in packages)


@given(
    st.text(max_size=60) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps)
)
def test_any_text_is_a_report_or_refused(text: str) -> None:
    with pytest.raises(InvalidFile):
        from_pip_report(text)


def test_what_uv_writes_is_a_lock() -> None:
    text = f"""mlx==0.32.4 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
torch==2.13.0+cpu
"""
    assert parse_lock(text) == [
        Package("mlx", "0.32.4", ("a" * 64, "b" * 64)),
        Package("torch", "2.13.0+cpu"),
    ]


def test_a_package_may_be_tied_to_its_address() -> None:
    item = {
        "metadata": {"name": "xllamacpp", "version": "2026.10.11549"},
        "download_info": {
            "url": "https://example.org/whl/cu128/xllamacpp-2026.10.11549-cp310-abi3-linux_x86_64.whl",
            "archive_info": {"hashes": {"sha256": "c" * 64}},
        },
    }
    report = json.dumps({"version": "1", "install": [item]})
    (tied,) = from_pip_report(report, with_url=True)
    assert tied.line().startswith("xllamacpp @ https://example.org/whl/cu128/")
    assert parse_lock(tied.line()) == [tied]
    (free,) = from_pip_report(report)
    assert free.line() == f"xllamacpp==2026.10.11549 --hash=sha256:{'c' * 64}"


def test_an_address_with_a_fragment_is_not_cut() -> None:
    line = f"a @ https://example.org/a-1-py3-none-any.whl#x=1 --hash=sha256:{'0' * 64}"
    assert parse_lock(line)[0].url == "https://example.org/a-1-py3-none-any.whl#x=1"


@pytest.mark.parametrize(
    "line",
    ["mlx>=1", "mlx", "mlx==1 --hash=md5:00", "mlx==1 --hash=sha256:zz", "../evil==1", "a b==1"],
)
def test_what_is_not_pinned_is_refused(line: str) -> None:
    with pytest.raises(InvalidFile) as refused:
        parse_lock(line, "lock.txt")
    assert refused.value.found == line


def test_names_have_one_spelling() -> None:
    assert canonical("Mistral_Common.x") == canonical("mistral-common-x") == "mistral-common-x"
    packages = [Package("Torch_Vision", "1"), Package("zlib", "1"), Package("abc", "1")]
    assert without(packages, ["torch.vision"]) == (packages[2], packages[1])


def test_only_full_hashes_are_strict() -> None:
    hashed, bare = Package("a", "1", ("0" * 64,)), Package("b", "1")
    assert are_hashed([hashed]) and not are_hashed([hashed, bare])


def test_what_is_present_is_seen_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "PyYAML-6.0.4.dist-info").mkdir()
    (tmp_path / "mlx_lm-0.32.2.dist-info").mkdir()
    (tmp_path / "yaml").mkdir()
    assert present(tmp_path) == {"pyyaml", "mlx-lm"}
