"""Servers that fail, and stores that cannot be written."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from gguf_edits import edited
from ollama_double import OllamaDouble
from services import Home, quiet, tree

from qwharf.artifacts import uses
from qwharf.errors import (
    ChecksumMismatch,
    CopyNeeded,
    EngineError,
    FormatUnavailable,
    StorageError,
)
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.types import DeploymentSpec

PLATFORM = OllamaPlatform()
ROOT = os.name != "nt" and os.getuid() == 0


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
