"""The Ollama driver: against a server that keeps a real store, file by file and byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
from gguf_edits import edited
from ollama_double import OllamaDouble
from services import Home, installed, quiet, tree

from qwharf import settings
from qwharf.artifacts import uses
from qwharf.daemon.starting import free_port
from qwharf.errors import (
    ChecksumMismatch,
    Conflict,
    CopyNeeded,
    EngineError,
    FormatUnavailable,
    InvalidFile,
    QwharfError,
    StorageError,
    UsageError,
)
from qwharf.platforms import ollama_address, ollama_process, ollama_store
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.platforms.ollama_api import Ollama
from qwharf.types import DeploymentSpec, Format

PLATFORM = OllamaPlatform()
ROOT = os.name != "nt" and os.getuid() == 0


@pytest.fixture
def models(home: Home) -> Path:
    """Ollama's store, with a model of the user's own in it."""
    path = home.path / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(path))
    return path


@pytest.fixture
def spec(home: Home, tiny_gguf: Path) -> DeploymentSpec:
    return home.spec(home.keep(tiny_gguf), "ollama")


@pytest.fixture
def server(home: Home, models: Path) -> Iterator[OllamaDouble]:
    with OllamaDouble(models) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        yield server


def own_model(models: Path, weights: Path, name: str = "library/mine/latest") -> Path:
    """A model that the user made, by a copy of the weights unless its content is there."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    blobs = models / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    blob = blobs / f"sha256-{digest}"
    if not blob.exists():
        shutil.copy(weights, blob)
    config = b"{}"
    config_digest = hashlib.sha256(config).hexdigest()
    (blobs / f"sha256-{config_digest}").write_bytes(config)
    manifest = models / "manifests" / "registry.ollama.ai" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layer = {"digest": f"sha256:{digest}", "size": weights.stat().st_size}
    body = {
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": f"sha256:{config_digest}", "size": 2},
        "layers": [{"mediaType": "application/vnd.ollama.image.model", **layer}],
    }
    manifest.write_text(json.dumps(body))
    return manifest


# ---------------------------------------------------------------------------------- its address


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:1234", "https://example.com:1234"),
        ("http://example.com:1234/ollama/", "http://example.com:1234/ollama"),
        ("example.com:1234/", "http://example.com:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("1.2.3.4:-1", "http://1.2.3.4:11434"),
        ("1.2.3.4:66000", "http://1.2.3.4:11434"),
        ("example.com:ten", "http://example.com:11434"),
        (' "1.2.3.4" ', "http://1.2.3.4:11434"),
        ("'1.2.3.4:99'", "http://1.2.3.4:99"),
        ("ollama.com", "https://ollama.com:443"),
    ],
)
def test_every_spelling_of_its_address(text: str, url: str) -> None:
    assert ollama_address.url({"OLLAMA_HOST": text}) == url


# ------------------------------------------------------------------------------------- placing


def test_the_store_holds_exactly_what_ollama_wants(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    served = PLATFORM.deploy(spec, quiet)
    weights = spec.artifact_path.read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    config = (
        b'{"model_format":"gguf","model_family":"qwen3","model_families":["qwen3"],'
        b'"model_type":"1.85M","file_type":"Q4_K_M","architecture":"amd64","os":"linux"}'
    )
    params = (
        b'{"num_ctx":700,"num_thread":1,"temperature":0.6,"top_p":0.95,"top_k":20,"min_p":0.0,'
        b'"presence_penalty":0.0,"repeat_penalty":1.0}'
    )
    layers = (
        ("application/vnd.docker.container.image.v1+json", config),
        ("application/vnd.ollama.image.params", params),
    )
    described = [
        f'{{"mediaType":"{kind}","digest":"sha256:{hashlib.sha256(data).hexdigest()}",'
        f'"size":{len(data)}}}'
        for kind, data in layers
    ]
    manifest = (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        f'"config":{described[0]},"layers":['
        f'{{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}",'
        f'"size":{len(weights)}}},{described[1]}]}}'
    ).encode()
    wanted = {
        f"blobs/sha256-{digest}": weights,
        **{f"blobs/sha256-{hashlib.sha256(d).hexdigest()}": d for _, d in layers},
        "manifests/registry.ollama.ai/qwharf/tiny/latest": manifest,
    }
    assert {name: (models / name).read_bytes() for name in tree(models)} == wanted
    blob = models / "blobs" / f"sha256-{digest}"
    assert blob.samefile(spec.artifact_path), "one copy on the disk"
    assert not blob.is_symlink()
    for name in tree(models):  # the server may be another user's
        assert (models / name).stat().st_mode & stat.S_IROTH
    assert served.model == "qwharf/tiny"
    assert served.url == server.url
    assert served.engine == "ollama 0.33.0"
    assert served.applied.context_tokens == 700
    assert served.applied.total_bytes == sum(map(len, wanted.values())) - len(manifest)
    assert served.pid == os.getpid()


def test_the_model_is_loaded_to_stay_with_its_own_options(
    server: OllamaDouble, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    loads = [body for what, body in server.asked if what == "POST /api/generate"]
    assert loads == [
        {
            "model": "qwharf/tiny",
            "keep_alive": -1,
            "stream": False,
            "shift": False,
            "options": {"num_ctx": 700, "num_thread": 1},
        }
    ]
    (entry,) = server.ps()["models"]
    assert entry["expires_at"] > "2200"


def test_instruct_models_get_their_sampling(spec: DeploymentSpec) -> None:
    told = ollama_store.parameters(replace(spec, thinking="instruct", threads=None))
    assert told == {
        "num_ctx": 700,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "min_p": 0.0,
        "presence_penalty": 1.5,
        "repeat_penalty": 1.0,
    }


def test_a_licence_comes_along(models: Path, spec: DeploymentSpec, server: OllamaDouble) -> None:
    (spec.artifact_path.parent / "LICENSE").write_text("Do good.")
    PLATFORM.deploy(spec, quiet)
    assert server.show("qwharf/tiny")["license"] == "Do good."


@pytest.mark.parametrize(
    ("count", "text"),
    [(8_190_735_360, "8.2B"), (3_386_112, "3.39M"), (751_632_384, "751.63M"), (2_000, "2K")],
)
def test_numbers_are_written_as_ollama_does(count: int, text: str) -> None:
    assert ollama_store.human_number(count) == text


def test_doing_it_twice_is_doing_it_once(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    first = PLATFORM.deploy(spec, quiet)
    before = tree(models)
    assert PLATFORM.deploy(spec, quiet) == first
    assert tree(models) == before
    assert server.loads == 1


def test_another_context_replaces_the_old_one(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    other = replace(spec, context_tokens=900)
    assert PLATFORM.deploy(other, quiet).applied.context_tokens == 900
    assert len(tree(models)) == 4, "the old parameters are gone"
    PLATFORM.release(other)
    assert tree(models) == {}


# -------------------------------------------------------------------------- taking back, status


def test_release_leaves_nothing_and_the_users_all(
    server: OllamaDouble, home: Home, models: Path, spec: DeploymentSpec, tiny_gguf: Path
) -> None:
    own_model(models, tiny_gguf)  # the very weights
    theirs, ours = tree(models), tree(home.store.root / "artifacts")
    PLATFORM.deploy(spec, quiet)
    assert tree(models) != theirs
    PLATFORM.release(spec)
    assert tree(models) == theirs
    assert not (models / "manifests/registry.ollama.ai/qwharf").exists()
    assert tree(home.store.root / "artifacts") == ours
    assert server.ps() == {"models": []}
    PLATFORM.release(spec)  # never fails because it is gone


def test_release_works_without_a_server(
    server: OllamaDouble, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    home.patch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    PLATFORM.release(spec)
    assert tree(models) == {}


def test_status_follows_the_model(server: OllamaDouble, spec: DeploymentSpec) -> None:
    assert PLATFORM.status(spec) is None
    served = PLATFORM.deploy(spec, quiet)
    assert PLATFORM.status(spec) == served
    for runner in list(server.runners.values()):
        server.end(runner)
    asleep = PLATFORM.status(spec)
    assert asleep is not None, "it wakes by itself"
    assert asleep.applied.context_tokens is None
    server.shelf.delete(server.shelf.find("qwharf/tiny")[1])
    assert PLATFORM.status(spec) is None


def test_a_user_who_changes_our_model_owns_it(
    server: OllamaDouble, models: Path, spec: DeploymentSpec, tiny_gguf: Path
) -> None:
    PLATFORM.deploy(spec, quiet)
    manifest = own_model(models, tiny_gguf, "qwharf/tiny/latest")
    before = tree(models)
    assert PLATFORM.status(spec) is None
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(spec, quiet)
    assert str(manifest) in e.value.subject
    PLATFORM.release(spec)
    after = tree(models)
    assert after[str(manifest.relative_to(models))] == before[str(manifest.relative_to(models))]
    assert server.show("qwharf/tiny"), "what they need is still there"


def test_two_may_share_the_weights(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    twin = replace(spec, name="twin")
    PLATFORM.deploy(spec, quiet)
    PLATFORM.deploy(twin, quiet)
    assert server.loads == 1
    PLATFORM.release(spec)
    served = PLATFORM.status(twin)
    assert served is not None
    assert server.show("qwharf/twin")
    PLATFORM.release(twin)
    assert tree(models) == {}


# ------------------------------------------------------------------------------------- refusing


def test_two_contexts_on_the_same_weights_are_refused(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    before = tree(models)
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, name="long", context_tokens=900), quiet)
    assert "tiny" in e.value.found
    assert "num_ctx 700" in e.value.found
    assert "num_ctx 900" in e.value.expected
    assert tree(models) == before


def test_names_that_ollama_takes_for_one_are_refused(
    server: OllamaDouble, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, name="Tiny"), quiet)
    assert "qwharf/tiny" in e.value.found


def test_a_model_of_the_users_is_never_replaced(
    server: OllamaDouble, models: Path, spec: DeploymentSpec, tiny_gguf: Path
) -> None:
    own_model(models, tiny_gguf, "qwharf/tiny/latest")
    before = tree(models)
    with pytest.raises(Conflict):
        PLATFORM.deploy(spec, quiet)
    assert tree(models) == before
    PLATFORM.release(spec)
    assert tree(models) == before


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({"format": Format("safetensors", "bf16")}, FormatUnavailable, "safetensors:bf16"),
        ({"context_tokens": 2049}, UsageError, "2,048"),
        ({"context_tokens": 0}, UsageError, "0"),
        ({"parallel": 0}, UsageError, "0"),
        ({"threads": 0}, UsageError, "0"),
        ({"kv_cache_type": "bf16"}, UsageError, "q8_0"),
        ({"adapters": {"mine": Path("/a")}}, UsageError, "mine"),
        ({"artifact_path": Path("/nonexistent/m.gguf")}, QwharfError, "/nonexistent"),
    ],
)
def test_nonsense_is_refused(
    fields: dict[str, Any],
    error: type[QwharfError],
    names: str,
    server: OllamaDouble,
    spec: DeploymentSpec,
) -> None:
    PLATFORM.check(spec)
    with pytest.raises(error) as e:
        PLATFORM.check(replace(spec, **fields))
    assert names in f"{e.value.subject} {e.value.found} {e.value.expected}"
    assert e.value.hint


def test_weights_in_parts_are_refused(
    server: OllamaDouble, spec: DeploymentSpec, tiny_gguf: Path, tmp_path: Path
) -> None:
    part = tmp_path / "m-00001-of-00002.gguf"
    shutil.copy(tiny_gguf, part)
    shutil.copy(tiny_gguf, tmp_path / "m-00002-of-00002.gguf")
    with pytest.raises(QwharfError) as e:
        PLATFORM.check(replace(spec, artifact_path=part))
    assert e.value.hint


def test_a_kv_cache_that_contradicts_the_servers_is_refused(
    server: OllamaDouble, home: Home, spec: DeploymentSpec
) -> None:
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, kv_cache_type="q8_0"), quiet)
    assert "OLLAMA_KV_CACHE_TYPE=q8_0" in e.value.hint
    home.patch.setenv("OLLAMA_KV_CACHE_TYPE", "q8_0")
    assert PLATFORM.deploy(replace(spec, kv_cache_type="q8_0"), quiet)


def test_parallel_is_the_servers_and_that_is_told(
    server: OllamaDouble, spec: DeploymentSpec
) -> None:
    told: list[str] = []
    PLATFORM.deploy(replace(spec, parallel=4), told.append)
    assert any("OLLAMA_NUM_PARALLEL" in t for t in told)


# ---------------------------------------------------------------------------------- bad servers


def answering(status: int, body: Any) -> Any:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)
        return True

    return fault


def hanging_up(handler: BaseHTTPRequestHandler) -> bool:
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True
    return True


def half(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"model":')
    return hanging_up(handler)


def test_no_ollama_at_all(home: Home, spec: DeploymentSpec) -> None:
    home.patch.setenv("PATH", str(home.path))
    here = PLATFORM.availability()
    assert not here.installed
    assert "127.0.0.1:9" in here.reason
    assert "ollama.com" in here.hint
    assert PLATFORM.engine() == "ollama (not installed)"
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(spec)
    assert e.value.hint == here.hint
    with pytest.raises(EngineError) as f:
        PLATFORM.deploy(spec, quiet)
    assert "ollama serve" in f.value.hint


@pytest.mark.parametrize(("version", "good"), [("0.29.9", False), ("0.30.0-rc1", True)])
def test_too_old(
    version: str, good: bool, server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    server.version = version
    assert PLATFORM.availability().installed is good
    if good:
        PLATFORM.deploy(spec, quiet)
        return
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert version in e.value.found
    assert "0.30" in e.value.expected
    assert tree(models) == {}


@pytest.mark.parametrize(
    ("where", "fault", "words"),
    [
        ("POST /api/generate", answering(500, {"error": "CUDA out of memory"}), "CUDA out of"),
        ("POST /api/generate", answering(503, {"error": "server busy"}), "server busy"),
        ("POST /api/generate", answering(500, b"<html>oops"), "oops"),
        ("POST /api/generate", answering(500, b""), "500"),
        ("POST /api/generate", hanging_up, "no answer"),
        ("POST /api/generate", half, "no answer"),
        ("POST /api/generate", answering(200, b""), "memory"),
        ("GET /api/tags", answering(500, {"error": "invalid character 'n'"}), "invalid char"),
        ("GET /api/ps", answering(200, {"models": []}), "memory"),
        ("GET /api/ps", answering(200, b"[1, 2]"), "memory"),
    ],
)
def test_what_fails_leaves_a_clean_store(
    where: str, fault: Any, words: str, server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    server.faults[where] = fault
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert words in e.value.found
    assert tree(models) == {}
    server.faults.clear()
    assert PLATFORM.deploy(spec, quiet).applied.context_tokens == 700


def test_a_file_with_yarn_of_its_own_reaches_further(
    server: OllamaDouble, home: Home, tiny_gguf: Path, tmp_path: Path
) -> None:
    def stretch(metadata: dict[str, Any], _: object) -> None:
        metadata["qwen3.context_length"] = ("u32", 8192)
        metadata["qwen3.rope.scaling.type"] = ("str", "yarn")
        metadata["qwen3.rope.scaling.factor"] = ("f32", 4.0)
        metadata["qwen3.rope.scaling.original_context_length"] = ("u32", 2048)

    spec = home.spec(
        home.keep(edited(tiny_gguf, tmp_path / "yarn.gguf", stretch)),
        "ollama",
        context_tokens=6000,
    )
    PLATFORM.check(spec)
    assert PLATFORM.deploy(spec, quiet).applied.context_tokens == 6000


def test_a_context_that_was_cut_is_noticed(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    """Ollama cuts what the file does not reach to, in silence; check refuses it, this does too."""
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(replace(spec, context_tokens=4000), quiet)
    assert "2048" in e.value.found
    assert e.value.expected == "4,000"
    assert tree(models) == {}


# ----------------------------------------------------------------------------------- bad stores


def test_across_file_systems_it_asks(home: Home, tiny_gguf: Path, other_file_system: Path) -> None:
    models = other_file_system / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(models))
    artifact = home.keep(tiny_gguf)
    spec = home.spec(artifact, "ollama")
    size = spec.artifact_path.stat().st_size
    with OllamaDouble(models) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        assert PLATFORM.steps(spec)[0].what == "copy"
        with pytest.raises(CopyNeeded) as e:
            PLATFORM.deploy(spec, quiet)
        assert e.value.facts["copy_bytes"] == size
        assert "--copy" in e.value.hint
        assert tree(models) == {}
        told: list[str] = []
        PLATFORM.deploy(replace(spec, may_copy=True), told.append)
        assert any(t.endswith("copy") for t in told)
        assert len(tree(models)) == 4
        (use,) = uses.find(home.store)[artifact.id]
        assert (use.shared, use.deployment) == (False, "tiny")
        PLATFORM.release(spec)
        assert tree(models) == {}


def test_a_full_disk(home: Home, tiny_gguf: Path, small_disk: Path) -> None:
    models = small_disk / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(models))
    spec = home.spec(home.keep(tiny_gguf), "ollama", may_copy=True)
    with OllamaDouble(models) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        with pytest.raises(StorageError) as e:
            PLATFORM.deploy(spec, quiet)
        assert "free" in f"{e.value.found} {e.value.hint}"
        assert tree(models) == {}


@pytest.mark.skipif(not ROOT, reason="needs to become another user")
def test_a_store_of_another_user(
    server: OllamaDouble, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    """Seen as nobody: a store of root's."""
    for folder in (models / "blobs", models / "manifests"):
        folder.mkdir(parents=True, exist_ok=True)
    PLATFORM.check(spec)  # whatever it imports may lie where nobody cannot read
    for path in [home.path, *home.path.rglob("*")]:
        if not path.is_relative_to(models):
            os.chown(path, 65534, 65534)
    roots = [p for p in home.path.parents if "pytest-of" in str(p)]
    modes = [p.stat().st_mode for p in roots]
    for path in roots:
        path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(CopyNeeded) as e:
            PLATFORM.deploy(spec, quiet)
    finally:
        os.seteuid(0)
        for path, mode in zip(roots, modes, strict=True):
            path.chmod(mode)
    assert "may not be written to" in e.value.found
    assert tree(models) == {}


def test_weights_that_changed_are_not_handed_on(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    spec.artifact_path.chmod(0o644)
    with spec.artifact_path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(ChecksumMismatch):
        PLATFORM.deploy(spec, quiet)
    assert tree(models) == {}


def test_a_damaged_content_of_theirs_is_told(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    digest = hashlib.sha256(spec.artifact_path.read_bytes()).hexdigest()
    blob = models / "blobs" / f"sha256-{digest}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"half")
    with pytest.raises(StorageError) as e:
        PLATFORM.deploy(spec, quiet)
    assert e.value.subject == str(blob)
    assert blob.read_bytes() == b"half"


def test_a_broken_manifest_of_theirs_keeps_every_content(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    broken = models / "manifests/registry.ollama.ai/library/broken/latest"
    broken.parent.mkdir(parents=True)
    broken.write_text("{nonsense")
    PLATFORM.release(spec)
    left = set(tree(models))
    assert "manifests/registry.ollama.ai/qwharf/tiny/latest" not in left
    assert len(left) == 4, "three contents and theirs"


def test_a_server_that_looks_elsewhere(
    home: Home, tmp_path: Path, models: Path, spec: DeploymentSpec
) -> None:
    """Then what was placed is taken back, and the API is the way, if copies are allowed."""
    with OllamaDouble(tmp_path / "elsewhere") as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        with pytest.raises(CopyNeeded) as e:
            PLATFORM.deploy(spec, quiet)
        assert str(models) in e.value.found
        assert tree(models) == {}
        allowed = replace(spec, may_copy=True)
        served = PLATFORM.deploy(allowed, quiet)
        assert served.applied.context_tokens == 700
        assert tree(models) == {}
        shown = server.show("qwharf/tiny")
        assert "temperature" in shown["parameters"]
        assert PLATFORM.deploy(allowed, quiet) == served
        assert PLATFORM.status(allowed) is not None
        PLATFORM.release(allowed)
        assert server.ps() == {"models": []}
        assert not list(server.shelf.manifests())
        assert PLATFORM.status(allowed) is None


def test_a_model_handed_over_is_remembered_until_it_is_deleted(
    home: Home, tmp_path: Path, models: Path, spec: DeploymentSpec
) -> None:
    allowed = replace(spec, may_copy=True)
    with OllamaDouble(tmp_path / "elsewhere") as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        PLATFORM.deploy(allowed, quiet)
    PLATFORM.release(allowed)  # nobody answers
    (placed,) = uses.Records(home.store.root).all()
    assert placed.url == server.url


def test_ollama_starting_finds_our_model_whole(
    home: Home, models: Path, spec: DeploymentSpec
) -> None:
    """Its start deletes old files that no manifest names; ours are named."""
    old = time.time() - 100_000
    with OllamaDouble(models) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        PLATFORM.deploy(spec, quiet)
    for path in models.rglob("*"):
        os.utime(path, (old, old))
    before = tree(models)
    with OllamaDouble(models) as server:
        assert tree(models) == before


# ------------------------------------------------------------------------------------- starting


@pytest.fixture
def program(home: Home, models: Path) -> Iterator[Path]:
    """An ``ollama`` on the PATH that is not running."""
    path = installed(home.path / "bin")
    home.patch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    yield path
    ollama_process.stop(settings.load())


def test_an_installed_ollama_is_started_and_ended(
    program: Path, models: Path, spec: DeploymentSpec
) -> None:
    here = PLATFORM.availability()
    assert (here.installed, here.version, here.where) == (True, "0.33.0", str(program))
    steps = PLATFORM.steps(spec)
    assert (steps[0].what, steps[0].where) == ("start", "ollama serve")
    told: list[str] = []
    served = PLATFORM.deploy(spec, told.append)
    assert "starting `ollama serve`" in told
    started = ollama_process.started(settings.load())
    assert started is not None
    assert served.pid == started.pid
    process = psutil.Process(started.pid)
    assert os.getsid(started.pid) != os.getsid(0), "it outlives our terminal"
    assert any("Listening" in line for line in PLATFORM.log(spec, 5))
    assert PLATFORM.steps(spec)[0].what == "link"
    PLATFORM.release(spec)
    process.wait(10)
    assert tree(models) == {}
    assert ollama_process.started(settings.load()) is None


def test_a_server_with_somebody_elses_model_is_left_running(
    program: Path, models: Path, spec: DeploymentSpec, moe_gguf: Path
) -> None:
    PLATFORM.deploy(spec, quiet)
    own_model(models, moe_gguf)
    api = Ollama(ollama_address.url())
    api.load({"model": "mine", "keep_alive": -1})
    PLATFORM.release(spec)
    assert api.version() == "0.33.0"
    assert [m["name"] for m in api.loaded()] == ["mine:latest"]


def test_a_server_for_another_kv_cache(program: Path, spec: DeploymentSpec) -> None:
    PLATFORM.deploy(replace(spec, kv_cache_type="q8_0", parallel=2), quiet)
    process = ollama_process.listener(ollama_address.url())
    told = ollama_process.environment(process)
    assert told is not None
    assert told["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert told["OLLAMA_NUM_PARALLEL"] == "2"
    with pytest.raises(Conflict):
        PLATFORM.deploy(replace(spec, name="other"), quiet)


def test_a_server_that_does_not_start_is_explained(
    program: Path, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    program.write_text("#!/bin/sh\necho 'Error: no space for a key' >&2; exit 1\n")
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert e.value.found == "Error: no space for a key"
    assert "ollama-server.log" in e.value.hint
    assert tree(models) == {}


def test_a_port_that_is_somebody_elses(
    program: Path, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EngineError) as e:
            PLATFORM.deploy(spec, quiet)
    assert "in use" in e.value.found


def test_a_server_killed_is_started_again(program: Path, spec: DeploymentSpec) -> None:
    served = PLATFORM.deploy(spec, quiet)
    assert served.pid is not None
    process = psutil.Process(served.pid)
    os.kill(served.pid, signal.SIGKILL)
    process.wait(10)
    with pytest.raises(EngineError):
        PLATFORM.status(spec)
    again = PLATFORM.deploy(spec, quiet)
    assert again.pid != served.pid


def test_a_program_too_old(program: Path, home: Home) -> None:
    home.patch.setenv("OLLAMA_DOUBLE_VERSION", "0.12.3")
    here = PLATFORM.availability()
    assert not here.installed
    assert "0.12.3" in here.reason


# ------------------------------------------------------------------------------------ beforehand


def test_what_would_be_done_is_what_is_done(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    steps = PLATFORM.steps(spec)
    assert tree(models) == {}
    assert PLATFORM.steps(spec) == steps
    PLATFORM.deploy(spec, quiet)
    placed = {s.where for s in steps if s.what in ("link", "write")}
    assert placed == {str(models / name) for name in tree(models)}
    for step in steps:
        if step.what == "write":
            assert json.loads(Path(step.where).read_bytes()) == step.content
    assert steps[-1].content == next(b for w, b in server.asked if w == "POST /api/generate")


def test_weights_that_are_not_there_yet(models: Path, spec: DeploymentSpec) -> None:
    planned = replace(spec, artifact_id="", artifact_path=Path("/data/store/artifacts/ID/m.gguf"))
    steps = PLATFORM.steps(planned)
    assert [s.what for s in steps][-4:] == ["write", "write", "write", "request"]
    assert steps[-5].where.endswith("sha256-…")


def test_another_machine(home: Home, spec: DeploymentSpec) -> None:
    home.patch.setenv("OLLAMA_HOST", "https://gpu.example.org")
    steps = PLATFORM.steps(spec)
    assert [s.what for s in steps] == ["copy", "request", "request"]
    assert steps[0].where.startswith("POST https://gpu.example.org:443/api/blobs/sha256:")
    assert steps[1].where == "POST https://gpu.example.org:443/api/create"


def test_a_template_is_wanted(
    server: OllamaDouble, spec: DeploymentSpec, tiny_gguf: Path, tmp_path: Path
) -> None:
    raw = tiny_gguf.read_bytes()
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(raw.replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX"))
    with pytest.raises(InvalidFile) as e:
        PLATFORM.check(replace(spec, artifact_path=bare))
    assert "chat_template" in e.value.expected
