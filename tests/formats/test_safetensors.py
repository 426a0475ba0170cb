"""The safetensors container: golden bytes, what is refused, and anything at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError, StorageError
from qwharf.formats.safetensors import DTYPE_BYTES, SafetensorsWriter, read_safetensors

from .bytes_by_hand import safetensors

HEADER = {
    "__metadata__": {"format": "pt"},
    "b": {"dtype": "F32", "shape": [1, 2], "data_offsets": [4, 12]},
    "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
    "none": {"dtype": "U8", "shape": [0, 5], "data_offsets": [12, 12]},
}
DATA = bytes(range(12))


def inside(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        b"\x67\0\0\0\0\0\0\0"
        b'{"__metadata__":{"k":"v"},"t":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}'
        + b" " * 22
        + b"\x00\x3c\x00\xc0"
    )
    file = read_safetensors(path)
    assert file.metadata == {"k": "v"} and file.data_offset == 0x67 + 8
    entry = file.tensors["t"]
    assert (entry.dtype, entry.shape, entry.offset, entry.size_bytes) == ("F16", (2, 1), 111, 4)
    assert b"".join(file.chunks("t", 3)) == b"\x00\x3c\x00\xc0"


def test_the_writer_writes_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with SafetensorsWriter(path, [("é", "F16", [2, 1]), ("z", "U8", [3])], {"k": "v"}) as writer:
        assert not path.exists()
        writer.write(b"\x00\x3c")
        writer.write(memoryview(b"\x00\xc0abc"))
    assert path.read_bytes() == (
        b"\x88\0\0\0\0\0\0\0"
        b'{"__metadata__":{"k":"v"},"\xc3\xa9":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},'
        b'"z":{"dtype":"U8","shape":[3],"data_offsets":[4,7]}}  \x00\x3c\x00\xc0abc'
    )
    assert inside(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize(
    ("entries", "data"),
    [
        ([("a", "U8", [1]), ("a", "U8", [1])], b""),
        ([("__metadata__", "U8", [1])], b""),
        ([("a", "Q4_K", [1])], b""),
        ([("a", "U8", [-1])], b""),
        ([("a", "U8", [2])], b"123"),
        ([("a", "U8", [2])], b"1"),
    ],
)
def test_what_the_writer_refuses(tmp_path: Path, entries: Any, data: bytes) -> None:
    path = tmp_path / "x"
    with pytest.raises(ValueError):
        with SafetensorsWriter(path, entries) as writer:
            writer.write(data)
    assert inside(tmp_path) == []


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), SafetensorsWriter(path, [("a", "U8", [2])]) as writer:
        writer.write(b"1")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and inside(tmp_path) == ["x"]


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(StorageError), SafetensorsWriter(tmp_path / "no" / "x", []):
        pass


def changed(**fields: Any) -> dict[str, Any]:
    """HEADER with one tensor's fields replaced."""
    return {**HEADER, "a": {**HEADER["a"], **fields}}


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"1234567",
    "no header": struct.pack("<Q", 0),
    "header beyond the file": safetensors(HEADER, DATA, length=10**6),
    "enormous header": safetensors(HEADER, DATA, length=2**63),
    "header cut": safetensors(HEADER, DATA, length=20),
    "not UTF-8": safetensors(b'{"\xff": 1}', b""),
    "a list": safetensors([], b""),
    "deep": safetensors(b"[" * 100_000, b""),
    "too many values": safetensors(b"[" + b"0," * 5_000_000 + b"0]", b""),
    "long number": safetensors(b'{"a":' + b"9" * 9999 + b"}", b""),
    "name twice": safetensors(b'{"a":{},"a":{}}', b""),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}}, b""),
    "metadata no object": safetensors({"__metadata__": "a"}, b""),
    "empty name": safetensors({"": HEADER["a"]}, DATA[:4]),
    "NUL in a name": safetensors({"a\0b": HEADER["a"]}, DATA[:4]),
    "no object": safetensors({"a": 5}, b""),
    "no dtype": safetensors({"a": {"shape": [], "data_offsets": [0, 0]}}, b""),
    "unknown dtype": safetensors(changed(dtype="F4"), DATA),
    "dtype a list": safetensors(changed(dtype=["BF16"]), DATA),
    "negative size": safetensors(changed(shape=[-2, -1]), DATA),
    "size a float": safetensors(changed(shape=[2.0]), DATA),
    "size a bool": safetensors(changed(shape=[True, 2]), DATA),
    "huge shape": safetensors(changed(shape=[2**62, 2**62]), DATA),
    "too many dimensions": safetensors(changed(shape=[1] * 17), DATA),
    "offsets of three": safetensors(changed(data_offsets=[0, 4, 8]), DATA),
    "offsets swapped": safetensors(changed(data_offsets=[4, 0]), DATA),
    "offsets beyond": safetensors(changed(data_offsets=[2**62, 2**62 + 4]), DATA),
    "size and offsets differ": safetensors(changed(shape=[3]), DATA),
    "overlap": safetensors(changed(data_offsets=[2, 6]), DATA),
    "hole": safetensors({"b": HEADER["b"]}, DATA),
    "data cut": safetensors(HEADER, DATA[:-1]),
    "data too long": safetensors(HEADER, DATA + b"x"),
    "a GGUF": b"GGUF\3\0\0\0" + bytes(100),
    "a pickle": b"\x80\x04\x95" + bytes(100),
    "zip": b"PK\3\4" + bytes(100),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(REFUSED[name])
    with pytest.raises(InvalidFile) as caught:
        read_safetensors(path)
    error = caught.value
    assert error.subject == str(path) and error.found and error.expected
    assert len(str(error)) < 1000


def test_order_in_the_header_is_free(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(safetensors(HEADER, DATA))
    file = read_safetensors(path)
    assert list(file.tensors) == ["b", "a", "none"]
    assert b"".join(file.chunks("a")) == DATA[:4] and b"".join(file.chunks("b")) == DATA[4:]
    assert b"".join(file.chunks("none")) == b""


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "none" / "x", Path("/dev/zero")):
        with pytest.raises(InvalidFile):
            read_safetensors(path)
    with pytest.raises(InvalidFile):
        read_safetensors(Path("a\0b"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidFile):  # and does not wait for a writer
        read_safetensors(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(QwharfError):
        read_safetensors(loop)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(safetensors(HEADER, DATA))
    file = read_safetensors(path)
    os.truncate(path, path.stat().st_size - 5)
    with pytest.raises(InvalidFile, match="early"):
        list(file.chunks("b"))


def test_a_sparse_giant_costs_nothing(tmp_path: Path) -> None:
    size = 1 << 40
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    path = tmp_path / "x"
    path.write_bytes(safetensors(header, b""))
    os.truncate(path, path.stat().st_size + size)
    assert read_safetensors(path).tensors["a"].size_bytes == size


names = st.text(min_size=1, max_size=8).filter(
    lambda n: "\0" not in n and n != "__metadata__" and n.isprintable()
)
shapes = st.lists(st.integers(0, 5), max_size=3)
dtypes = st.sampled_from(sorted(DTYPE_BYTES))


@given(st.dictionaries(names, st.tuples(dtypes, shapes), max_size=6), st.randoms())
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], random: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.safetensors"
    entries = [(n, d, s) for n, (d, s) in tensors.items()]
    bodies = {n: random.randbytes(DTYPE_BYTES[d] * math.prod(s)) for n, d, s in entries}
    with SafetensorsWriter(path, entries) as writer:
        writer.write(b"".join(bodies.values()))
    file = read_safetensors(path)
    assert file.data_offset % 8 == 0
    for name, dtype, shape in entries:
        found = file.tensors[name]
        assert (found.dtype, list(found.shape)) == (dtype, shape)
        assert b"".join(file.chunks(name, 7)) == bodies[name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
WILD_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["BF16", "F32", "U8"]) | JSON,
        "shape": st.lists(st.integers(-1, 2**65), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


@given(
    st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), WILD_ENTRY | JSON, max_size=4)
    | JSON,
    st.binary(max_size=40),
    st.integers(-3, 3),
)
def test_wild_headers_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Any, data: bytes, off: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "wild.safetensors"
    raw = json.dumps(header).encode()
    path.write_bytes(safetensors(raw, data, length=max(0, len(raw) + off)))
    with contextlib.suppress(QwharfError):
        file = read_safetensors(path)
        assert sum(t.size_bytes for t in file.tensors.values()) == len(data) - off


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255))))
def test_flipped_and_cut_files_are_read_or_refused(
    tmp_path: Path, cut: int, flips: list[tuple[int, int]]
) -> None:
    raw = bytearray(safetensors(HEADER, DATA))
    for at, bits in flips[:4]:
        raw[at % len(raw)] ^= bits
    path = tmp_path / "x"
    path.write_bytes(raw[: cut % (len(raw) + 1)] if cut % 3 else raw)
    with contextlib.suppress(QwharfError):
        for name in (file := read_safetensors(path)).tensors:
            list(file.chunks(name))
