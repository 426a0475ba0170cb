"""Which files belong to an artifact, and what a hub's list may say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.artifacts.listing import (
    Listing,
    check_repo_id,
    check_revision,
    entry_of,
    fingerprint,
    pin_path,
    read_pin,
    write_pin,
)
from qwharf.artifacts.modelscope import _entries
from qwharf.artifacts.selection import gguf_quantization, select
from qwharf.artifacts.store import Store
from qwharf.errors import FormatUnavailable, InvalidFile, NetworkError, UsageError
from qwharf.types import Format

SHARDS = [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
BF16 = Format("safetensors", "bf16")
CHECKPOINT = [
    *SHARDS, "model.safetensors.index.json", "config.json", "generation_config.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "LICENSE", "NOTICE.txt",
    "README.md", ".gitattributes", "pytorch_model.bin", "optimizer.pt", "training_args.bin",
    "modeling_qwen3.py", "original/model.safetensors", "onnx/model.onnx", "figures/a.png",
    "consolidated.safetensors", "chat_template.jinja",
]  # fmt: skip
GGUFS = [
    "Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q5_0.gguf", "Qwen3-8B-Q5_K_M.gguf", "Qwen3-8B-Q6_K.gguf",
    "Qwen3-8B-Q8_0.gguf", "LICENSE", "README.md", "params",
]  # fmt: skip


def test_a_checkpoint() -> None:
    chosen = select(CHECKPOINT, BF16, subject="r")
    left = set(CHECKPOINT) - set(chosen.names)
    assert left == {
        "README.md", ".gitattributes", "pytorch_model.bin", "optimizer.pt", "training_args.bin",
        "modeling_qwen3.py", "original/model.safetensors", "onnx/model.onnx", "figures/a.png",
        "consolidated.safetensors",
    }  # fmt: skip
    assert chosen.entry is None
    for container in ("mlx", "safetensors"):
        assert select(CHECKPOINT, Format(container, "x"), subject="r") == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize("quantization", ["q4_k_m", "q5_0", "q5_k_m", "q6_k", "q8_0"])
def test_one_gguf_of_many(quantization: str) -> None:
    chosen = select(GGUFS, Format("gguf", quantization), subject="r")
    name = f"Qwen3-8B-{quantization.upper()}.gguf"
    assert chosen.names == ("LICENSE", name) and chosen.entry == name


def test_split_ones_in_folders() -> None:
    names = [
        f"{q}/Qwen3-235B-A22B-{q}-{n:05d}-of-{c:05d}.gguf"
        for q, c in (("Q4_K_M", 5), ("Q8_0", 9))
        for n in range(1, c + 1)
    ]
    chosen = select(names, Format("gguf", "q4_k_m"), subject="r")
    assert len(chosen.names) == 5 and chosen.entry == names[0]


def test_an_odd_second_copy_is_left() -> None:
    names = ["m-q8_0.gguf", "old/m-with-more-q8_0.gguf"]
    assert select(names, Format("gguf", "q8_0"), subject="r").names == ("m-q8_0.gguf",)


@pytest.mark.parametrize(
    ("names", "format", "found"),
    [
        (GGUFS, Format("gguf", "iq1_s"), "gguf:q4_k_m, gguf:q5_0, gguf:q5_k_m"),
        (CHECKPOINT, Format("gguf", "q8_0"), "safetensors"),
        (["pytorch_model.bin"], BF16, "bin files"),
        (["README.md"], BF16, "1 files, none of them weights"),
        ([], BF16, "0 files"),
    ],
)
def test_what_is_not_there_is_told(names: list[str], format: Format, found: str) -> None:
    with pytest.raises(FormatUnavailable) as caught:
        select(names, format, subject="o/r")
    assert found in caught.value.found and caught.value.subject == "o/r"


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "q4_k_m"),
        ("qwen3-4b-instruct-2507-q8_0.gguf", "q8_0"),
        ("m.IQ4_XS.gguf", "iq4_xs"),
        ("a/BF16/m-BF16-00001-of-00002.gguf", "bf16"),
        ("m-F16.gguf", "f16"),
        ("m_q4_0.gguf", "q4_0"),
        ("Q8_0.GGUF", "q8_0"),
        ("m-UD-Q4_K_XL.gguf", "q4_k_xl"),
        ("m-MXFP4.gguf", "mxfp4"),
        ("m.gguf", None),
        ("m-Q8_0-v2.gguf", None),
        ("mq8_0.gguf", None),
        ("m-Q8_0.bin", None),
    ],
)
def test_quantisation_in_names(name: str, quantization: str | None) -> None:
    assert gguf_quantization(name) == quantization


@given(st.lists(st.text(max_size=30)), st.sampled_from([BF16, Format("gguf", "q8_0")]))
def test_any_names(names: list[str], format: Format) -> None:
    try:
        chosen = select(names, format, subject="r")
    except FormatUnavailable:
        return
    assert set(chosen.names) <= set(names)


# ----------------------------------------------------------------------------------------- listing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys(("Path", "Size", "Sha256", "Type"), JSON))


@given(st.lists(ROW | JSON, max_size=5))
def test_any_rows_from_modelscope(rows: list[object]) -> None:
    try:
        entries = _entries(rows)
    except ValueError:
        return
    for entry in entries:
        assert entry.path and entry.size_bytes >= 0
        assert entry.sha256 is None or len(entry.sha256) == 64


@given(JSON, JSON, JSON, JSON)
def test_any_row(path: object, size: object, sha256: object, sha1: object) -> None:
    try:
        entry = entry_of(path, size, sha256=sha256, git_sha1=sha1)
    except ValueError:
        return
    assert isinstance(entry.path, str) and not isinstance(entry.size_bytes, bool)


def test_hashes_are_told_by_their_form() -> None:
    entry = entry_of("a", 1, sha256="AB" * 32, git_sha1="cd" * 20)
    assert (entry.sha256, entry.git_sha1) == ("ab" * 32, "cd" * 20)
    assert entry_of("a", 1, sha256="x", git_sha1=5).sha256 is None


def listing(*names: str) -> Listing:
    files = tuple(entry_of(n, 5, sha256="0" * 64) for n in names)
    return Listing(
        hub="hf",
        repository="o/r",
        endpoint="https://x",
        requested="main",
        revision="abc",
        files=files,
    )


def test_what_cannot_be_verified_is_refused() -> None:
    made = listing("a")
    assert made.entry("a").size_bytes == 5
    bare = Listing(
        hub="hf", repository="o/r", endpoint="https://x", requested="main", revision="abc",
        files=(entry_of("b", 5),),
    )  # fmt: skip
    with pytest.raises(NetworkError, match="no checksum"):
        bare.entry("b")


def test_a_fingerprint_names_contents() -> None:
    assert fingerprint(listing("a", "b").files) == fingerprint(listing("b", "a").files)
    assert fingerprint(listing("a").files) != fingerprint(listing("b").files)


@given(st.text(max_size=60))
def test_accepted_ids_and_revisions_are_harmless(text: str) -> None:
    for check in (check_repo_id, check_revision):
        try:
            check(text)
        except UsageError:
            continue
        assert ".." not in text and not text.startswith("/") and " " not in text
        assert not set(text) & set("?#%\\:&\n")


def test_pins_are_written_and_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    assert read_pin(store, "hf", "o/r") is None
    made = listing("a", "b")
    write_pin(store, made)
    assert read_pin(store, "hf", "o/r") == made
    assert read_pin(store, "modelscope", "o/r") is None
    other = json.loads(pin_path(store, "hf", "o/r").read_text())
    for change in ({"version": 9}, {"repository": "o/x"}, {"files": [{"path": 1}]}, {"new": 1}):
        pin_path(store, "hf", "o/r").write_text(json.dumps({**other, **change}))
        with pytest.raises(InvalidFile):
            read_pin(store, "hf", "o/r")


def test_the_catalogue_and_the_names_agree() -> None:
    from qwharf import catalog

    seen = 0
    for model in catalog.models():
        for repository in model.repositories:
            check_repo_id(repository.repo_id)
            if repository.format.container != "gguf" or not repository.files:
                continue
            names = [f.path for f in repository.files]
            chosen = select(names, repository.format, subject=repository.repo_id)
            assert chosen.names == tuple(sorted(names)) and chosen.entry == min(names)
            seen += 1
    assert seen > 20
