"""Conversion inside the store: once, resumed, remembered."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwharf.artifacts.converting import convert_artifact, made_before
from qwharf.artifacts.importing import import_path
from qwharf.artifacts.store import Store
from qwharf.errors import ChecksumMismatch, FormatUnavailable
from qwharf.testing import write_synthetic_checkpoint
from qwharf.types import Architecture, Artifact, Format

Q8 = Format("gguf", "q8_0")
SHAPE = Architecture(
    model_type="qwen3",
    num_hidden_layers=4,
    hidden_size=512,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=128,
    intermediate_size=1024,
    vocab_size=512,
    tie_word_embeddings=True,
    max_position_embeddings=40960,
    bos_token_id=151643,
    eos_token_id=151645,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_synthetic_checkpoint(SHAPE, folder, vocab="tiny", chat_template="{{ messages }}")
    return folder


def imported(store: Store, original: Path) -> Artifact:
    return import_path(store, original, model="qwen3:tiny").artifact


def test_converted_once_and_remembered(original: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        source = imported(store, original)
        told: list[tuple[str, int, int | None]] = []
        made = convert_artifact(store, source, Q8, progress=lambda *a: told.append(a))
        assert made.format == Q8 and made.model == "qwen3:tiny"
        assert made.path.name == "qwen3-tiny-Q8_0.gguf" and made.path.stat().st_mode & 0o222 == 0
        assert made.provenance["converted_from"] == source.id
        assert "xllamacpp" in made.provenance["tool"]
        assert {label for label, _, __ in told} == {"convert to gguf:q8_0"}  # read only once
        (file,) = made.files
        assert file.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
        told.clear()
        assert convert_artifact(store, source, Q8, progress=lambda *a: told.append(a)) == made
        assert told == []
        assert made_before(store, source, Q8) == made
        assert store.verify() == [] and list((store.root / "work").iterdir()) == []
        from qwharf.artifacts.inspecting import inspect_gguf

        assert inspect_gguf(made.path).format == Q8


def test_what_cannot_be_converted(original: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        source = imported(store, original)
        with pytest.raises(FormatUnavailable):
            convert_artifact(store, source, Format("gguf", "iq1_s"))


def test_a_source_that_was_changed_is_not_converted(original: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in original.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        source = imported(store, copy)
        weights = copy / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        time.sleep(0.02)
        weights.write_bytes(data)
        with pytest.raises(ChecksumMismatch):
            convert_artifact(store, source, Q8)


CONVERT = """
import sys
from pathlib import Path
from qwharf.artifacts.converting import convert_artifact, made_before
from qwharf.artifacts.store import Store
from qwharf.types import Format

store = Store(Path(sys.argv[1]))
source = store.get(sys.argv[2])
print("go", flush=True)
print(convert_artifact(store, source, Format("gguf", "q8_0")).id, flush=True)
"""


def start(root: Path, id: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", CONVERT, str(root), id]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def test_kill_at_any_moment(original: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "clean") as clean:
        wanted = convert_artifact(clean, imported(clean, original), Q8)
        expected = hashlib.sha256(wanted.path.read_bytes()).hexdigest()
    root = tmp_path / "store"
    with Store(root) as store:
        source = imported(store, original)
    for n in range(8):
        child = start(root, source.id)
        assert child.stdout is not None and child.stdout.readline() == b"go\n"
        time.sleep(0.03 + 0.03 * n)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Store(root) as store:
            found = store.find("qwen3:tiny", Q8)
            assert found is None or found.id == wanted.id
            assert store.verify() == []
    with Store(root) as store:
        made = convert_artifact(store, source, Q8)
        assert hashlib.sha256(made.path.read_bytes()).hexdigest() == expected
        assert made.id == wanted.id
        store.gc(unfinished_after_s=-1)
        assert store.verify() == []


def test_two_at_once_do_the_work_once(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Store(root) as store:
        source = imported(store, original)
    children = [start(root, source.id) for _ in range(2)]
    outs = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outs[0][1] == outs[1][1]
    with Store(root) as store:
        assert len(store.artifacts()) == 2 and store.verify() == []
