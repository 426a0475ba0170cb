"""Importance matrices: both forms, what they mean, and what a damaged one gets."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwharf.errors import InvalidFile, StorageError
from qwharf.formats.ggml_types import GGML_TYPES
from qwharf.formats.gguf_writer import GgufWriter
from qwharf.quantize.imatrix import Entry, Importance, needs_importance, read, recorded, write
from qwharf.testing import TINY, TINY_MOE

from .imatrix_files import importance

DENSE = importance(replace(TINY, num_hidden_layers=1), 1)
MIXED = importance(replace(TINY_MOE, num_hidden_layers=1, num_experts=3), 2)
F32 = GGML_TYPES["F32"]


def same(a: Importance, b: Importance) -> bool:
    return (a.chunks, a.chunk_tokens, a.datasets) == (b.chunks, b.chunk_tokens, b.datasets) and (
        a.entries.keys() == b.entries.keys()
        and all(
            np.array_equal(e.sums, b.entries[n].sums)
            and np.array_equal(e.counts, b.entries[n].counts)
            for n, e in a.entries.items()
        )
    )


# ----------------------------------------------------------------------------------- both forms


@pytest.mark.parametrize("made", [DENSE, MIXED], ids=["dense", "mixture"])
def test_the_gguf_form_keeps_everything(tmp_path: Path, made: Importance) -> None:
    write(made, tmp_path / "x", "gguf")
    assert same(read(tmp_path / "x"), made)


@pytest.mark.parametrize("made", [DENSE, MIXED], ids=["dense", "mixture"])
def test_the_older_form_keeps_importances(tmp_path: Path, made: Importance) -> None:
    write(made, tmp_path / "x", "dat")
    found = read(tmp_path / "x")
    assert (found.chunks, found.datasets) == (made.chunks, made.datasets)
    for name, entry in made.entries.items():
        weights = found.weights(name, *entry.sums.shape)
        assert weights is not None
        assert np.allclose(weights, entry.means(), rtol=3e-7)


def test_the_older_form_leaves_out_what_saw_nothing(tmp_path: Path) -> None:
    empty = Entry(np.zeros((2, 4), np.float32), np.zeros(2, np.int64))
    write(replace(DENSE, entries={**DENSE.entries, "blk.9.x.weight": empty}), tmp_path / "x", "dat")
    assert read(tmp_path / "x").entries.keys() == DENSE.entries.keys()


def test_the_oldest_files_end_with_the_entries(tmp_path: Path) -> None:
    raw = struct.pack("<ii3sii2f", 1, 3, b"abc", 4, 2, 8.0, 0.0)
    (tmp_path / "x").write_bytes(raw)
    found = read(tmp_path / "x")
    assert (found.chunks, found.datasets) == (0, ())
    assert found.entries["abc"].means().tolist() == [[2.0, 0.0]]


def test_without_calls_the_values_are_the_importances(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<ii3sii2f", 1, 3, b"abc", 0, 2, 8.0, 0.5))
    assert read(tmp_path / "x").entries["abc"].means().tolist() == [[8.0, 0.5]]


def test_counts_far_beyond_24_bits_stay_whole(tmp_path: Path) -> None:
    count = 2**24 - 1  # odd: half of one more would be rounded up
    big = Entry(np.ones((1, 4), np.float32), np.array([count]))
    write(replace(DENSE, entries={"a": big}), tmp_path / "x")
    assert read(tmp_path / "x").entries["a"].counts.tolist() == [count]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    for form in ("gguf", "dat"):
        with pytest.raises(StorageError):
            write(DENSE, tmp_path / "no folder" / "x", form)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------- meaning


def test_importances_are_means_and_one_where_nothing_was_seen() -> None:
    entry = Entry(np.array([[6, 3], [9, 9]], np.float32), np.array([3, 0]))
    assert entry.means().tolist() == [[2, 1], [1, 1]]


def test_weights_of_a_tensor() -> None:
    name = "blk.0.ffn_down_exps.weight"
    entry = MIXED.entries[name]
    weights = MIXED.weights(name, 3, 256)
    assert weights is not None and np.array_equal(weights, entry.means())
    flat = Entry(entry.means().reshape(1, -1), np.array([1]))  # as the older form has it
    older = replace(MIXED, entries={name: flat}).weights(name, 3, 256)
    assert older is not None and np.array_equal(older, entry.means())
    assert MIXED.weights("output.weight", 1, 256) is None


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(InvalidFile, match=r"blk\.0\.attn_q\.weight") as caught:
        DENSE.weights("blk.0.attn_q.weight", 1, 512)
    assert caught.value.facts["tensor"] == "blk.0.attn_q.weight"
    other = Entry(np.ones((1, 8), np.float32), np.array([1]))
    assert (
        replace(DENSE, entries={"token_embd.weight": other}).weights("token_embd.weight", 1, 256)
        is None
    )


@pytest.mark.parametrize(
    ("name", "type_name", "quantization", "needed"),
    [
        ("blk.0.attn_q.weight", "IQ2_XXS", "iq2_xxs", True),
        ("blk.0.attn_q.weight", "IQ3_XXS", "iq3_xs", True),
        ("blk.0.attn_q.weight", "IQ1_M", "iq1_m", True),
        ("blk.0.attn_q.weight", "IQ3_S", "iq3_m", False),
        ("blk.0.attn_q.weight", "Q2_K", "q2_k", False),
        ("blk.0.attn_q.weight", "Q2_K", "q2_k_s", True),
        ("token_embd.weight", "Q2_K", "q2_k_s", False),
        ("output.weight", "IQ2_XXS", "iq2_xxs", False),
    ],
)
def test_what_is_not_made_without(
    name: str, type_name: str, quantization: str, needed: bool
) -> None:
    assert needs_importance(name, type_name, quantization) is needed


def test_a_file_tells_what_it_was_made_with() -> None:
    made = replace(DENSE, source="/home/someone/x.gguf", datasets=("ä" * 100, "other"))
    assert recorded(made) == {
        "quantize.imatrix.file": ("str", "x.gguf"),
        "quantize.imatrix.dataset": ("str", "ä" * 63 + "\udcc3"),  # cut at 127 bytes
        "quantize.imatrix.entries_count": ("u32", 7),
        "quantize.imatrix.chunks_count": ("u32", 2),
    }
    assert recorded(replace(made, chunks=0, datasets=())).keys() == {
        "quantize.imatrix.file",
        "quantize.imatrix.entries_count",
    }


def test_the_digest_follows_every_number() -> None:
    assert DENSE.digest() == replace(DENSE, chunks=9, source="elsewhere").digest()
    name = "blk.0.attn_q.weight"
    entry = DENSE.entries[name]
    sums = entry.sums.copy()
    sums[0, -1] *= 1.5
    changed = {**DENSE.entries, name: Entry(sums, entry.counts)}
    assert replace(DENSE, entries=changed).digest() != DENSE.digest()


# -------------------------------------------------------------------------------------- damage

KEYS: dict[str, tuple[str, Any]] = {
    "general.type": ("str", "imatrix"),
    "imatrix.datasets": ("[str]", ["a"]),
    "imatrix.chunk_count": ("u32", 1),
    "imatrix.chunk_size": ("u32", 512),
}


def gguf(
    path: Path, tensors: dict[str, Any], keys: dict[str, tuple[str, Any]] | None = None
) -> Path:
    arrays = {n: np.asarray(v, np.float32) for n, v in tensors.items()}
    entries = [(n, a.shape, F32) for n, a in arrays.items()]
    with GgufWriter(path, KEYS if keys is None else keys, entries) as writer:
        for array in arrays.values():
            writer.write(array.tobytes())
    return path


GOOD = {"a.in_sum2": [[1.0, 2.0]], "a.counts": [[2.0]]}


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"a.in_sum2": [[1.0]]}, "'a' without sums or without counts"),
        ({"a.counts": [[1.0]]}, "'a' without sums or without counts"),
        ({"token_embd.weight": [[1.0]]}, "no sums"),
        ({**GOOD, "a.counts": [[1.0], [1.0], [1.0]]}, "2 sums and 3 counts"),
        ({**GOOD, "a.counts": [[float("nan")]]}, "an impossible count"),
        ({**GOOD, "a.counts": [[-1.0]]}, "an impossible count"),
        ({**GOOD, "a.counts": [[1e30]]}, "an impossible count"),
        ({**GOOD, "a.in_sum2": [[1.0, float("inf")]]}, "a sum that is not finite"),
        ({**GOOD, "a.in_sum2": [[float("nan"), 1.0]]}, "a sum that is not finite"),
        ({**GOOD, "a.in_sum2": [[-1.0, 1.0]]}, "a negative sum"),
    ],
)
def test_a_bad_gguf_form(tmp_path: Path, tensors: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(gguf(tmp_path / "x", tensors))
    assert found in caught.value.found
    assert caught.value.hint


@pytest.mark.parametrize("key", ["imatrix.chunk_count", "imatrix.chunk_size"])
def test_the_keys_of_the_gguf_form(tmp_path: Path, key: str) -> None:
    assert read(gguf(tmp_path / "good", GOOD)).entries["a"].means().tolist() == [[0.5, 1.0]]
    for value in (None, ("str", "many")):
        keys = {k: v for k, v in KEYS.items() if k != key} | ({key: value} if value else {})
        with pytest.raises(InvalidFile, match=key):
            read(gguf(tmp_path / "x", GOOD, keys))


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", "number of entries"),
        (b"PK\3\4 is no importance matrix", "number of entries"),
        (struct.pack("<i", 0), "number of entries = 0"),
        (struct.pack("<ii", 1, -3), "the length of a tensor's name"),
        (struct.pack("<ii", 1, 2**31 - 1), "the length of a tensor's name"),
        (struct.pack("<ii3sii", 1, 3, b"abc", 1, 0), "the number of values"),
        (struct.pack("<ii3sii", 1, 3, b"abc", 1, 2**29), "values of 'abc' of 2,147,483,648"),
        (struct.pack("<ii3siif", 1, 3, b"abc", 1, 1, np.inf), "not finite"),
        (struct.pack("<ii3siif", 1, 3, b"abc", 1, 1, -1.0), "negative"),
        (struct.pack("<ii3siif", 1, 3, b"abc", 1, 1, 3e38), "not finite"),
        (2 * struct.pack("<i3siif", 3, b"abc", 1, 1, 1.0), "twice"),
        (struct.pack("<ii3siifiib", 1, 3, b"abc", 1, 1, 1.0, 1, 0, 7), "1 bytes more"),
        (struct.pack("<ii3siifii", 1, 3, b"abc", 1, 1, 1.0, 1, 9), "the name of the text"),
    ],
)
def test_a_bad_older_form(tmp_path: Path, raw: bytes, found: str) -> None:
    if found == "twice":
        raw = struct.pack("<i", 2) + raw
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(InvalidFile) as caught:
        read(tmp_path / "x")
    assert found in caught.value.found


def whole(folder: Path, form: Any) -> bytes:
    small = {n: MIXED.entries[n] for n in sorted(MIXED.entries)[:2]}
    cut = {n: Entry(e.sums[:, :3].copy(), e.counts) for n, e in small.items()}
    write(replace(MIXED, entries=cut), folder / "whole", form)
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    raw = whole(tmp_path, form)
    ends = {len(raw)} | ({len(raw) - 8 - len("seeded.txt"), len(raw) - 4 - len("seeded.txt")})
    for end in range(len(raw)):
        (tmp_path / "x").write_bytes(raw[:end])
        if form == "dat" and end in ends:  # the oldest files have no more
            read(tmp_path / "x")
        elif form == "gguf" and not raw[end:].strip(b"\0"):
            continue  # only padding is missing
        else:
            with pytest.raises(InvalidFile):
                read(tmp_path / "x")


@pytest.mark.parametrize("form", ["gguf", "dat"])
@settings(max_examples=150)
@given(data=st.data())
def test_damage_gives_an_importance_matrix_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    raw = bytearray(whole(folder, form))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(
            st.sampled_from(
                [b"\0", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1"]
            )
        )
        raw[at : at + len(patch)] = patch
    (folder / "x").write_bytes(raw)
    try:
        found = read(folder / "x")
    except InvalidFile as e:
        assert e.found and e.expected
    else:
        for entry in found.entries.values():
            assert np.isfinite(entry.means()).all()


@given(raw=st.binary(max_size=200))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(raw)
    with contextlib.suppress(InvalidFile):
        read(path)
