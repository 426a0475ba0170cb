"""What Ollama and LM Studio have becomes an artifact without a copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from qwharf.artifacts import lm_studio_models, ollama_models, uses
from qwharf.artifacts.convert import convert
from qwharf.artifacts.store import Store
from qwharf.cli.main import cli
from qwharf.errors import ChecksumMismatch, InvalidFile, QwharfError, UnknownModel, UsageError
from qwharf.testing import TINY, write_synthetic_checkpoint
from qwharf.types import Format


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_synthetic_checkpoint(TINY, folder / "checkpoint", vocab="tiny")
    convert(folder / "checkpoint", Format("gguf", "q4_k_m"), folder / "m.gguf", threads=1)
    return folder / "m.gguf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QWHARF_HOME", str(tmp_path / "qwharf"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setattr(ollama_models, "SERVICE_HOME", tmp_path / "nobody")
    return tmp_path


def in_ollama(home: Path, weights: Path, name: str = "library/qwen3/8b", **more: Any) -> Path:
    """A model as `ollama pull` leaves it; its blob."""
    models = home / ".ollama" / "models"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    blob = models / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(weights, blob)
    layers = [{"mediaType": ollama_models.MODEL_LAYER, "digest": f"sha256:{digest}", "size": 1}]
    layers += more.get("layers", [])
    manifest = models / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    config = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 2}
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}))
    return blob


def in_lm_studio(home: Path, weights: Path, name: str) -> Path:
    path = home / ".lmstudio" / "models" / name
    path.parent.mkdir(parents=True)
    shutil.copy(weights, path)
    return path


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, [*words], catch_exceptions=True)


def shelf(home: Path) -> Store:
    return Store(home / "qwharf" / "data" / "store")


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("qwen3", "qwen3:latest"),
        ("qwen3:8b", "qwen3:8b"),
        ("qwharf/pocket:q8_0", "qwharf/pocket:q8_0"),
        ("hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M", "hf.co/Qwen/Qwen3-8B-GGUF:Q4_K_M"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("registry.ollama.ai/library/qwen3:8b", "qwen3:8b"),
    ],
)
def test_names_of_ollama(text: str, shown: str) -> None:
    assert str(ollama_models.parse_name(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "/", "a/b/c/d", ".x", "a b", "a/.b", "x.y/z", "m:a:b", "../../etc", "a//b", "m:"]
)
def test_what_is_no_name(text: str) -> None:
    if text == "m:":  # Ollama takes an empty tag for the usual one
        assert str(ollama_models.parse_name(text)) == "m:latest"
        return
    with pytest.raises(UsageError):
        ollama_models.parse_name(text)


@given(st.text(max_size=40))
def test_names_never_lead_out_of_the_store(text: str) -> None:
    models = Path("/models")
    try:
        path = ollama_models.parse_name(text).path(models)
    except UsageError:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(models / "manifests")


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["config", "layers", "digest", "size", "mediaType"]), inner, max_size=3
    ),
).map(lambda v: json.dumps(v).encode()))  # fmt: skip
def test_any_manifest_is_understood_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        name = ollama_models.parse_name("x")
        path = name.path(Path(folder))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        try:
            ollama_models.read_manifest(Path(folder), name)
        except InvalidFile as e:
            assert e.hint


def test_where_ollama_keeps_its_models(home: Path) -> None:
    found = ollama_models.models_folder
    assert found() == home / ".ollama" / "models"
    assert found({"OLLAMA_MODELS": "'/big/disk'"}) == Path("/big/disk")
    assert found({"HOME": "/home/x"}) == Path("/home/x/.ollama/models")
    (ollama_models.SERVICE_HOME / ".ollama" / "models").mkdir(parents=True)
    assert found() == ollama_models.SERVICE_HOME / ".ollama" / "models"
    (home / ".ollama" / "models").mkdir(parents=True)
    assert found() == home / ".ollama" / "models"


# ----------------------------------------------------------------------------------- from Ollama


def test_a_model_of_ollamas_is_shared(home: Path, tiny_gguf: Path) -> None:
    blob = in_ollama(home, tiny_gguf)
    result = run("store", "import", "ollama:Qwen3:8B", "--json")
    assert result.exit_code == 0, result.output
    (artifact,) = shelf(home).artifacts()
    assert artifact.model == "ollama:Qwen3:8B"
    assert artifact.path.name == "Qwen3-8B.gguf"
    assert artifact.path.samefile(blob), "no copy"
    assert artifact.provenance["program"] == "ollama"
    assert artifact.provenance["source"] == str(blob)
    (use,) = uses.find(shelf(home))[artifact.id]
    assert (use.platform, use.model, use.shared) == ("ollama", "qwen3:8b", True)
    assert use.deployment is None
    listed = run("store", "ls")
    assert "ollama qwen3:8b" in listed.output
    told = json.loads(run("store", "ls", "--json").output)
    assert told[0]["uses"][0]["model"] == "qwen3:8b"


def test_what_ollama_deletes_we_keep(home: Path, tiny_gguf: Path) -> None:
    blob = in_ollama(home, tiny_gguf)
    assert run("store", "import", "ollama:qwen3:8b").exit_code == 0
    blob.unlink()
    (artifact,) = shelf(home).artifacts()
    shelf(home).check(artifact)
    assert artifact.path.read_bytes() == tiny_gguf.read_bytes()


def test_what_we_remove_ollama_keeps(home: Path, tiny_gguf: Path) -> None:
    blob = in_ollama(home, tiny_gguf)
    assert run("store", "import", "ollama:qwen3:8b").exit_code == 0
    (artifact,) = shelf(home).artifacts()
    result = run("store", "rm", artifact.id[:12])
    assert result.exit_code == 0, result.output
    assert "ollama qwen3:8b" in result.output
    assert run("store", "gc").exit_code == 0
    assert blob.read_bytes() == tiny_gguf.read_bytes()


def test_tags_that_moved_are_noticed(home: Path, tiny_gguf: Path) -> None:
    in_ollama(home, tiny_gguf)
    result = run("store", "import", "ollama:qwen3:8b", "--as", "qwen3:8b")
    assert isinstance(result.exception, InvalidFile)
    assert "another shape" in result.exception.found
    assert "qwen3:4b have moved" in result.exception.hint
    assert shelf(home).artifacts() == ()


def test_a_damaged_blob_is_refused(home: Path, tiny_gguf: Path) -> None:
    blob = in_ollama(home, tiny_gguf)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 0xFF
    blob.write_bytes(data)
    result = run("store", "import", "ollama:qwen3:8b")
    assert isinstance(result.exception, ChecksumMismatch)
    assert shelf(home).artifacts() == ()


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("nothing", [], "no model"),
        ("qwen3:8b", [{"mediaType": ollama_models.ADAPTER_LAYER, "digest": "sha256:" + "1" * 64}],
         "LoRA"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported(
    name: str, layers: list[Any], words: str, home: Path, tiny_gguf: Path
) -> None:
    in_ollama(home, tiny_gguf, layers=layers)
    with pytest.raises(QwharfError) as e:
        ollama_models.weights(ollama_models.models_folder(), name)
    assert words in e.value.found
    assert e.value.hint


def test_a_model_without_its_weights(home: Path, tiny_gguf: Path) -> None:
    in_ollama(home, tiny_gguf).unlink()
    with pytest.raises(InvalidFile) as e:
        ollama_models.weights(ollama_models.models_folder(), "qwen3:8b")
    assert "ollama pull qwen3:8b" in e.value.hint


# -------------------------------------------------------------------------------- from LM Studio


def test_a_model_of_lm_studios_is_shared(home: Path, tiny_gguf: Path) -> None:
    path = in_lm_studio(home, tiny_gguf, "acme/Tiny-GGUF/Tiny-Q4_K_M.gguf")
    result = run("store", "import", "lmstudio:acme/tiny-gguf")
    assert result.exit_code == 0, result.output
    (artifact,) = shelf(home).artifacts()
    assert artifact.model == "lmstudio:acme/tiny-gguf"
    assert artifact.path.samefile(path)
    (use,) = uses.find(shelf(home))[artifact.id]
    assert (use.platform, use.model, use.shared) == ("lmstudio", "acme/Tiny-GGUF", True)


def test_a_folder_of_lm_studios_is_shared(home: Path, tmp_path: Path) -> None:
    folder = home / ".lmstudio" / "models" / "acme" / "tiny-bf16"
    write_synthetic_checkpoint(TINY, folder, vocab="tiny")
    result = run("store", "import", "lmstudio:acme/tiny-bf16")
    assert result.exit_code == 0, result.output
    (artifact,) = shelf(home).artifacts()
    weights = next(f.name for f in artifact.files if f.name.endswith(".safetensors"))
    assert (artifact.path / weights).samefile(folder / weights)


def test_of_several_files_one_must_be_named(home: Path, tiny_gguf: Path) -> None:
    path = in_lm_studio(home, tiny_gguf, "acme/Tiny-GGUF/Tiny-Q4_K_M.gguf")
    shutil.copy(path, path.with_name("Tiny-Q8_0.gguf"))
    models = lm_studio_models.models_folder()
    with pytest.raises(InvalidFile) as e:
        lm_studio_models.find(models, "acme/Tiny-GGUF")
    assert "lmstudio:acme/Tiny-GGUF/Tiny-Q4_K_M.gguf" in e.value.hint
    assert lm_studio_models.find(models, "acme/Tiny-GGUF/Tiny-Q4_K_M.gguf") == path


@pytest.mark.parametrize("name", ["acme", "../x", "a/..", "a/b/c/d", "/etc/passwd", "a/b/../c", ""])
def test_what_is_no_name_of_lm_studios(name: str, home: Path) -> None:
    with pytest.raises(UsageError):
        lm_studio_models.find(lm_studio_models.models_folder(), name)


def test_a_model_that_lm_studio_does_not_have(home: Path, tiny_gguf: Path) -> None:
    in_lm_studio(home, tiny_gguf, "acme/Tiny-GGUF/Tiny-Q4_K_M.gguf")
    with pytest.raises(UnknownModel) as e:
        lm_studio_models.find(lm_studio_models.models_folder(), "acme/other")
    assert "acme/Tiny-GGUF" in e.value.expected


def test_a_path_that_looks_like_a_program(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    write_synthetic_checkpoint(TINY, home / "ollama:x", vocab="tiny")
    result = run("store", "import", "ollama:x", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["provenance"]["source"] == str(home / "ollama:x")
