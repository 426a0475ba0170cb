"""The GGUF container: golden bytes, what is refused, and anything at all."""

from __future__ import annotations

import contextlib
import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, QwharfError
from qwharf.formats.ggml_types import FILE_TYPES, GGML_TYPES, GGML_TYPES_BY_ID
from qwharf.formats.gguf import Skipped, read_gguf
from qwharf.formats.gguf_writer import GgufWriter, gguf_header

from .bytes_by_hand import gguf, info, key, text

GOLDEN = (
    b"GGUF\3\0\0\0"
    b"\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
    b"\1\0\0\0\0\0\0\0a\4\0\0\0\7\0\0\0"
    b"\1\0\0\0\0\0\0\0b\x08\0\0\0\2\0\0\0\0\0\0\0\xc3\xbc"
    b"\1\0\0\0\0\0\0\0c\x09\0\0\0\x08\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0d"
    b"\1\0\0\0\0\0\0\0t\2\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    b"\1\0\0\0\0\0\0\0q\1\0\0\0\x20\0\0\0\0\0\0\0\x08\0\0\0\x20\0\0\0\0\0\0\0"
)
DATA = bytes(range(24)) + bytes(8) + bytes(range(34)) + bytes(30)


def golden() -> bytes:
    return GOLDEN + b"\0" * (-len(GOLDEN) % 32) + DATA


def write(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


def test_golden_bytes(tmp_path: Path) -> None:
    file = read_gguf(write(tmp_path / "x.gguf", golden()))
    assert file.version == 3 and file.alignment == 32
    assert file.metadata == {"a": 7, "b": "ü", "c": ["", "d"]}
    assert file.kinds == {"a": "u32", "b": "str", "c": "[str]"}
    t, q = file.tensors["t"], file.tensors["q"]
    assert (t.shape, t.type.name, t.size_bytes) == ((3, 2), "F32", 24)
    assert (q.shape, q.type.name, q.size_bytes) == ((32,), "Q8_0", 34)
    assert b"".join(file.chunks("t", 5)) == DATA[:24]
    assert b"".join(file.chunks("q")) == DATA[32:66]


def test_the_writer_writes_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    metadata = {"a": ("u32", 7), "b": ("str", "ü"), "c": ("[str]", ["", "d"])}
    tensors = [("t", (3, 2), GGML_TYPES["F32"]), ("q", (32,), GGML_TYPES["Q8_0"])]
    with GgufWriter(path, metadata, tensors) as writer:
        assert not path.exists()
        writer.write(DATA[:10])
        writer.write(DATA[10:24] + DATA[32:40])  # over the border of two tensors
        writer.write(memoryview(DATA[40:66]))
    assert path.read_bytes() == golden()
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]


def test_every_type_of_value(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "u8": 255, "i8": -128, "u16": 65535, "i16": -32768, "u32": 2**32 - 1, "i32": -(2**31),
        "f32": 0.5, "bool": True, "str": "text", "u64": 2**64 - 1, "i64": -(2**63), "f64": 0.1,
    }  # fmt: skip
    keys = [key(k, k, v) for k, v in values.items()]
    keys += [key(f"[{k}]", f"[{k}]", [v, v]) for k, v in values.items()]
    file = read_gguf(write(tmp_path / "x", gguf(keys, [], b"")))
    assert file.metadata == values | {f"[{k}]": [v, v] for k, v in values.items()}
    assert file.kinds == {k: k for k in file.metadata}
    ours = gguf_header({k: (k, v) for k, v in file.metadata.items()}, [])
    assert ours.data == gguf(keys, [], b"")


def test_long_lists_are_skipped_unless_wanted(tmp_path: Path) -> None:
    items = [f"token {n}" for n in range(200)]
    keys = [key("t", "[str]", items), key("n", "[f32]", [0.5] * 65), key("s", "[i8]", [1] * 64)]
    path = write(tmp_path / "x", gguf(keys, [], b""))
    assert read_gguf(path).metadata == {"t": Skipped(200), "n": Skipped(65), "s": [1] * 64}
    kept = read_gguf(path, keep_arrays=True).metadata
    assert kept == {"t": items, "n": [0.5] * 65, "s": [1] * 64}


def test_stray_bytes_in_texts_survive(tmp_path: Path) -> None:
    raw = gguf([text(b"k") + struct.pack("<I", 8) + text(b"\xff\xfe")], [], b"")
    file = read_gguf(write(tmp_path / "x", raw))
    assert gguf_header({"k": ("str", file.metadata["k"])}, []).data == raw


def test_version_2_and_another_alignment(tmp_path: Path) -> None:
    keys = [key("general.alignment", "u32", 64)]
    infos = [info("a", (1,), 0, 0), info("b", (1,), 0, 64)]
    raw = gguf(keys, infos, b"\1" * 64 + b"\2" * 4, version=2, alignment=64)
    file = read_gguf(write(tmp_path / "x", raw))
    assert file.alignment == 64 and file.data_offset % 64 == 0
    assert b"".join(file.chunks("b")) == b"\2" * 4


F32 = info("a", (1,), 0, 0)
LIST = struct.pack("<I", 9)
REFUSED: dict[str, bytes] = {
    "empty": b"",
    "three bytes": b"GGU",
    "magic only": b"GGUF",
    "another magic": gguf([], [], b"", magic=b"GGML"),
    "version 1": gguf([], [], b"", version=1),
    "version 4": gguf([], [], b"", version=4),
    "big-endian": b"GGUF" + struct.pack(">Iqq", 3, 0, 0),
    "no counts": b"GGUF\3\0\0\0",
    "negative tensors": gguf([], [], b"", n_tensors=-1),
    "negative keys": gguf([], [], b"", n_keys=-1),
    "enormous tensors": gguf([], [], b"", n_tensors=2**62),
    "enormous keys": gguf([], [], b"", n_keys=2**62),
    "a key too many": gguf([], [], b"", n_keys=1),
    "a tensor too many": gguf([], [], b"", n_tensors=1),
    "key of enormous length": gguf([struct.pack("<Q", 2**63)], [], b"", n_keys=1),
    "key beyond the file": gguf([struct.pack("<Q", 60_000)], [], b"", n_keys=1),
    "empty key": gguf([key("", "u8", 1)], [], b""),
    "key twice": gguf([key("a", "u8", 1), key("a", "u8", 1)], [], b""),
    "value of unknown type": gguf([text(b"a") + struct.pack("<I", 13)], [], b""),
    "list of lists": gguf([text(b"a") + LIST + struct.pack("<IQ", 9, 1)], [], bytes(64)),
    "list of unknown type": gguf([text(b"a") + LIST + struct.pack("<IQ", 99, 1)], [], bytes(64)),
    "enormous list": gguf([text(b"a") + LIST + struct.pack("<IQ", 0, 2**63)], [], bytes(64)),
    "enormous list of texts": gguf([text(b"a") + LIST + struct.pack("<IQ", 8, 2**40)], [], b""),
    "list beyond the file": gguf([text(b"a") + LIST + struct.pack("<IQ", 10, 99)], [], bytes(64)),
    "texts beyond the file": gguf(
        [text(b"a") + LIST + struct.pack("<IQ", 8, 2) + text(b"x") + struct.pack("<Q", 99)], [], b""
    ),
    "enormous text in a list": gguf(
        [text(b"a") + LIST + struct.pack("<IQQ", 8, 1, 2**63)], [], bytes(64)
    ),
    "many long lists": gguf([key(f"k{n}", "[u8]", bytes(1 << 20)) for n in range(5)], [], b""),
    "text of enormous length": gguf(
        [text(b"a") + struct.pack("<IQ", 8, 2**62)], [], bytes(64)
    ),
    "alignment 0": gguf([key("general.alignment", "u32", 0)], [F32], bytes(4)),
    "alignment 24": gguf([key("general.alignment", "u32", 24)], [F32], bytes(4)),
    "alignment a text": gguf([key("general.alignment", "str", "32")], [F32], bytes(4)),
    "alignment enormous": gguf([key("general.alignment", "u32", 2**31)], [F32], bytes(4)),
    "alignment a list": gguf([key("general.alignment", "[u32]", [32])], [F32], bytes(4)),
    "no dimensions": gguf([], [info("a", (), 0, 0)], bytes(4)),
    "five dimensions": gguf([], [info("a", (1,) * 5, 0, 0)], bytes(4)),
    "size 0": gguf([], [info("a", (0,), 0, 0)], bytes(4)),
    "negative sizes": gguf([], [info("a", (-1, -4), 0, 0)], bytes(4)),
    "sizes that overflow": gguf([], [info("a", (2**32, 2**32), 0, 0)], bytes(4)),
    "type unknown": gguf([], [info("a", (1,), 255, 0)], bytes(4)),
    "type removed": gguf([], [info("a", (32,), 4, 0)], bytes(40)),
    "rows of 31": gguf([], [info("a", (31,), 8, 0)], bytes(40)),
    "rows of 128 in K-quants": gguf([], [info("a", (128, 2), 12, 0)], bytes(400)),
    "tensor twice": gguf([], [F32, info("a", (1,), 0, 32)], bytes(36)),
    "name of 300 bytes": gguf([], [info("a" * 300, (1,), 0, 0)], bytes(4)),
    "empty name": gguf([], [info("", (1,), 0, 0)], bytes(4)),
    "NUL in a name": gguf([], [info("a\0b", (1,), 0, 0)], bytes(4)),
    "overlap": gguf([], [F32, info("b", (1,), 0, 0)], bytes(36)),
    "hole": gguf([], [F32, info("b", (1,), 0, 64)], bytes(99)),
    "not aligned": gguf([], [F32, info("b", (1,), 0, 4)], bytes(99)),
    "shuffled": gguf([], [info("b", (1,), 0, 32), F32], bytes(99)),
    "enormous offset": gguf([], [info("a", (1,), 0, 2**64 - 32)], bytes(4)),
    "no data": gguf([], [F32], b""),
    "data cut": gguf([], [F32], bytes(3)),
    "safetensors": struct.pack("<Q", 2) + b"{}",
    "zip": b"PK\3\4" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("keep", [False, True])
def test_what_is_refused(tmp_path: Path, name: str, keep: bool) -> None:
    path = write(tmp_path / "bad.gguf", REFUSED[name])
    with pytest.raises(InvalidFile) as caught:
        read_gguf(path, keep_arrays=keep)
    error = caught.value
    assert error.subject == str(path) and error.found and error.expected and error.hint
    assert len(str(error)) < 1000


def test_big_endian_is_said() -> None:
    assert "big-endian" in str(_error(REFUSED["big-endian"]))


def _error(raw: bytes) -> QwharfError:
    import tempfile

    with tempfile.TemporaryDirectory() as place, pytest.raises(QwharfError) as caught:
        read_gguf(write(Path(place) / "x", raw))
    return caught.value


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(InvalidFile):
            read_gguf(path)


def test_a_sparse_giant_costs_nothing(tmp_path: Path) -> None:
    raw = gguf([], [info("a", (2**30, 2**8), 0, 0)], b"")
    path = write(tmp_path / "x", raw)
    os.truncate(path, len(raw) + 2**40)
    assert read_gguf(path).tensors["a"].size_bytes == 2**40


def test_a_header_without_end_is_given_up(tmp_path: Path) -> None:
    """A sparse file whose strings go on and on stops at the cap, in bounded memory."""
    head = gguf([text(b"a") + LIST + struct.pack("<IQ", 8, 1 << 19)], [], b"", alignment=1)
    path = write(tmp_path / "x", head)
    os.truncate(path, 1 << 33)
    file_or_error: Any = None
    with contextlib.suppress(InvalidFile):
        file_or_error = read_gguf(path)
    assert file_or_error is None or file_or_error.metadata == {"a": Skipped(1 << 19)}


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    file = read_gguf(write(tmp_path / "x", golden()))
    os.truncate(tmp_path / "x", file.tensors["q"].offset + 5)
    with pytest.raises(InvalidFile, match="early"):
        list(file.chunks("q"))


@pytest.mark.parametrize(
    ("metadata", "tensors", "alignment"),
    [
        ({"a": ("u8", 256)}, [], 32),
        ({"a": ("u32", -1)}, [], 32),
        ({"a": ("u32", "7")}, [], 32),
        ({"a": ("f32", 1e39)}, [], 32),
        ({"a": ("[i32]", [1, None])}, [], 32),
        ({"a": ("u33", 1)}, [], 32),
        ({"a": ("[[u8]]", [[1]])}, [], 32),
        ({"": ("u8", 1)}, [], 32),
        ({"a": ("str", "\ud800")}, [], 32),
        ({}, [("a", (), GGML_TYPES["F32"])], 32),
        ({}, [("a", (1,), GGML_TYPES["F32"])] * 2, 32),
        ({}, [("a", (31,), GGML_TYPES["Q8_0"])], 32),
        ({}, [], 24),
        ({}, [], 0),
    ],
)
def test_what_the_writer_refuses(metadata: Any, tensors: Any, alignment: int) -> None:
    with pytest.raises(ValueError):
        gguf_header(metadata, tensors, alignment)


@pytest.mark.parametrize("data", [b"", b"1" * 3, b"1" * 5])
def test_too_little_and_too_much(tmp_path: Path, data: bytes) -> None:
    writer = GgufWriter(tmp_path / "x", {}, [("a", (1,), GGML_TYPES["F32"])])
    with pytest.raises(ValueError), writer:
        writer.write(data)
    assert list(tmp_path.iterdir()) == []


def test_the_tables_agree() -> None:
    assert len(GGML_TYPES_BY_ID) == len(GGML_TYPES)
    assert len(set(FILE_TYPES.values())) == len(FILE_TYPES)
    assert GGML_TYPES["Q4_K"].bits_per_weight == 4.5
    assert GGML_TYPES["Q6_K"].bits_per_weight == 6.5625
    assert GGML_TYPES["IQ1_S"].size_bytes(512) == 100


def test_block_sizes_are_the_engines_own() -> None:
    """Asked of the library that will read the files."""
    from qwharf.quantize import ggml

    for kind in GGML_TYPES.values():
        found = ggml.library().block(kind.id)
        assert found == (kind.block_elements, kind.block_bytes), kind.name


SCALARS = {
    "u8": st.integers(0, 255), "i32": st.integers(-(2**31), 2**31 - 1), "bool": st.booleans(),
    "u64": st.integers(0, 2**64 - 1), "f64": st.floats(allow_nan=False),
    "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
}  # fmt: skip
VALUES = st.one_of(
    *(v.map(lambda x, k=k: (k, x)) for k, v in SCALARS.items()),
    *(st.lists(v, max_size=70).map(lambda x, k=k: (f"[{k}]", x)) for k, v in SCALARS.items()),
)
TENSORS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9),
        st.lists(st.integers(1, 3), max_size=3),
        st.sampled_from(sorted(GGML_TYPES)),
        st.integers(1, 2),
    ),
    max_size=5,
    unique_by=lambda t: t[0],
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)


@given(
    st.dictionaries(KEYS.filter(lambda k: k != "general.alignment"), VALUES, max_size=6),
    TENSORS,
    st.sampled_from([1, 8, 32, 64]),
    st.randoms(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    metadata: Any,
    tensors: Any,
    alignment: int,
    random: Any,
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.gguf"
    listed = [
        (name, (*outer, n * GGML_TYPES[kind].block_elements), GGML_TYPES[kind])
        for name, outer, kind, n in tensors
    ]
    bodies = {n: random.randbytes(t.size_bytes(math.prod(s))) for n, s, t in listed}
    with GgufWriter(path, metadata, listed, alignment) as writer:
        writer.write(b"".join(bodies.values()))
    file = read_gguf(path, keep_arrays=True)
    assert path.stat().st_size == writer.header.size_bytes
    for k, (kind, value) in metadata.items():
        assert file.metadata[k] == value and file.kinds[k] == kind
    for name, shape, kind in listed:
        found = file.tensors[name]
        assert (found.shape, found.type) == (shape, kind) and found.offset % alignment == 0
        assert b"".join(file.chunks(name, 11)) == bodies[name]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    cut=st.integers(0, 400),
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), max_size=3),
)
def test_flipped_and_cut_files_are_read_or_refused(
    tmp_path: Path, cut: int, flips: list[tuple[int, int]]
) -> None:
    raw = bytearray(golden())
    for at, bits in flips:
        raw[at % len(raw)] ^= bits
    path = write(tmp_path / "x", raw[: cut % (len(raw) + 1)] if cut % 3 else raw)
    with contextlib.suppress(QwharfError):
        file = read_gguf(path, keep_arrays=True)
        for name in file.tensors:
            list(file.chunks(name))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 14), st.binary(max_size=24)), max_size=3
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ""]),
            st.lists(st.integers(-1, 2**41), max_size=5),
            st.integers(0, 45),
            st.integers(0, 128),
        ),
        max_size=3,
    ),
    st.binary(max_size=90),
)
def test_wild_headers_are_read_or_refused(
    tmp_path: Path, keys: Any, tensors: Any, data: bytes
) -> None:
    raw = gguf(
        [text(k.encode()) + struct.pack("<I", kind) + body for k, kind, body in keys],
        [info(name, tuple(sizes), kind, offset) for name, sizes, kind, offset in tensors],
        data,
    )
    with contextlib.suppress(QwharfError):
        read_gguf(write(tmp_path / "x", raw), keep_arrays=True)
