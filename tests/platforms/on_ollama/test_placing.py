"""The Ollama driver, against a server that keeps a real store, file by file and byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from ollama_double import OllamaDouble
from own_models import own_model
from services import Home, quiet, tree

from qwharf.errors import (
    Conflict,
    InvalidFile,
)
from qwharf.platforms import ollama_address, ollama_store
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.types import DeploymentSpec

PLATFORM = OllamaPlatform()


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
