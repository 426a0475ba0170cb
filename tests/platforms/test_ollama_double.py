"""The double is held to the truth: recorded exchanges with a real Ollama, its own Python client,
and, where there is one on the PATH, the real program.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ollama_double import OllamaDouble
from services import Home, quiet, tree

from qwharf.daemon.starting import free_port
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.types import DeploymentSpec

RECORDINGS = Path(__file__).parent / "recordings" / "ollama"


def recorded(name: str) -> Iterator[dict[str, Any]]:
    for line in (RECORDINGS / f"{name}.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)


def parsed(body: Any) -> Any:
    """The JSON of an answer, the lines of one, or its text."""
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in body.splitlines()]
    except ValueError:
        return body


VARYING = {"modelfile", "template", "model_info", "tensors", "parameters", "license"}


def shape(value: Any, key: str = "") -> Any:
    """Keys and types; of what differs by model, only that it is there."""
    if key in VARYING:
        return "there"
    if isinstance(value, dict):
        return {k: shape(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value[:1]]
    return type(value).__name__


def put(
    models: Path,
    name: str,
    weights: Path,
    params: dict[str, Any] | None = None,
    *,
    bare: bool = False,
) -> Path:
    """A model written by hand, as the recordings' were: ``taught`` and its like."""
    blobs = models / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)

    def layer(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / f"sha256-{digest}").write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    config = {
        "model_format": "gguf",
        "model_family": "qwen3",
        "model_families": ["qwen3"],
        "model_type": "3.39M",
        "file_type": "BF16",
    }
    kind = "application/vnd.ollama.image."
    layers = [layer(kind + "model", weights.read_bytes())]
    if params is not None:
        layers.append(layer(kind + "license", b"Apache License 2.0 (test)"))
        layers.append(layer(kind + "params", json.dumps(params).encode()))
    made = layer(
        "application/vnd.docker.container.image.v1+json",
        json.dumps({} if bare else config).encode(),
    )
    path = models / "manifests/registry.ollama.ai/library" / name / "latest"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"schemaVersion": 2, "config": made, "layers": layers}))
    return path


@pytest.fixture
def server(tmp_path: Path, tiny_gguf: Path) -> Iterator[OllamaDouble]:
    models = tmp_path / "models"
    put(models, "taught", tiny_gguf)
    put(models, "taught-params", tiny_gguf, {"num_ctx": 2048, "temperature": 0.6})
    put(models, "taught-min", tiny_gguf, bare=True)
    with OllamaDouble(models) as server:
        yield server


def ask(server: OllamaDouble, request: dict[str, Any]) -> httpx2.Response:
    return httpx2.request(
        request["method"], server.url + request["path"], json=request.get("body"), timeout=60
    )


def hold(answer: httpx2.Response, response: dict[str, Any], name: str) -> None:
    assert answer.status_code == response["status"], name
    mine, theirs = parsed(answer.text), parsed(response["body"])
    assert shape(mine) == shape(theirs), name
    error = theirs.get("error") if isinstance(theirs, dict) else None
    if isinstance(error, str) and "invalid character" not in error:  # Go's words for broken JSON
        assert mine == theirs, name
    if isinstance(theirs, dict) and "done_reason" in theirs:
        assert mine["done_reason"] == theirs["done_reason"], name


STORE = (
    "version",
    "tags",
    "show",
    "show-params",
    "show-min",
    "show-404",
    "v1-models",
    "root",
    "ps-empty",
    "status",
)
NATIVE = ("generate-load", "chat-load", "ps", "unload", "ps-after-unload")


def test_it_answers_about_its_store_as_recorded(server: OllamaDouble) -> None:
    held = set()
    for exchange in recorded("store"):
        if exchange["name"] in STORE:
            hold(ask(server, exchange["request"]), exchange["response"], exchange["name"])
            held.add(exchange["name"])
    assert held == set(STORE)


def test_it_loads_and_unloads_as_recorded(server: OllamaDouble) -> None:
    exchanges = {e["name"]: e for e in recorded("native")}
    for name in NATIVE:
        hold(ask(server, exchanges[name]["request"]), exchanges[name]["response"], name)


def test_it_creates_as_recorded(server: OllamaDouble, tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    url = f"{server.url}/api/blobs/{digest}"
    assert httpx2.head(url).status_code == 200, "a content of the store"
    other = f"{server.url}/api/blobs/sha256:{'0' * 64}"
    assert httpx2.head(other).status_code == 404
    refused = httpx2.post(other, content=b"x")
    assert refused.status_code == 400
    assert "digest mismatch" in refused.text
    assert httpx2.post(url, content=data).status_code == 200
    before = tree(server.models)
    for exchange in recorded("create"):
        request, response = exchange["request"], exchange["response"]
        if exchange["name"] == "create-api":
            request["body"]["files"] = {"model.gguf": digest}
        answer = ask(server, request)
        assert answer.status_code == response["status"], exchange["name"]
        mine, theirs = parsed(answer.text), parsed(response["body"])
        if isinstance(theirs, list):
            assert [*mine[-1]] == [*theirs[-1]], exchange["name"]
            assert ("error" in mine[-1]) == ("error" in theirs[-1])
        else:
            assert mine == theirs, exchange["name"]
    assert set(before) < set(tree(server.models)), "both copies lie in the store"


def test_it_forgets_as_recorded(server: OllamaDouble) -> None:
    exchanges = {e["name"]: e for e in recorded("store-lifecycle")}
    (server.models / "manifests/registry.ollama.ai/library/broken").mkdir()
    broken = server.models / "manifests/registry.ollama.ai/library/broken/latest"
    broken.write_text("{nonsense")
    hold(
        ask(server, exchanges["show-broken"]["request"]),
        exchanges["show-broken"]["response"],
        "show-broken",
    )
    assert listed(server) == ["taught-min:latest", "taught-params:latest", "taught:latest"]
    broken.unlink()
    for name in ("copy", "delete", "delete2", "delete-404"):
        hold(ask(server, exchanges[name]["request"]), exchanges[name]["response"], name)
    assert listed(server) == ["taught-min:latest", "taught-params:latest"]


def test_it_fails_as_recorded(server: OllamaDouble, tiny_gguf: Path, tmp_path: Path) -> None:
    """What it says of a broken file is in its own words; where it says it, is as recorded."""
    broken = {"trunc": tiny_gguf.read_bytes()[:-5000], "junk": b"GGUF" + b"\xff" * 4000}
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        put(server.models, name, tmp_path / name)
    held = []
    for exchange in recorded("faults"):
        if exchange["name"] in ("truncated-gguf", "junk-gguf", "show-junk"):
            answer, theirs = ask(server, exchange["request"]), exchange["response"]
            assert answer.status_code == theirs["status"], exchange["name"]
            assert shape(parsed(answer.text)) == shape(parsed(theirs["body"])), exchange["name"]
            held.append(exchange["name"])
    assert len(held) == 3


def listed(server: OllamaDouble) -> list[str]:
    answer = ask(server, {"method": "GET", "path": "/api/tags"})
    return sorted(m["name"] for m in answer.json()["models"])


def test_it_prunes_at_its_start_as_seen(tmp_path: Path, tiny_gguf: Path) -> None:
    models = tmp_path / "models"
    put(models, "taught", tiny_gguf)
    old, young = (models / "blobs" / f"sha256-{c * 64}" for c in "ab")
    for path in (old, young, models / "blobs" / "strange"):
        path.write_bytes(b"x")
    long_ago = time.time() - 4000
    os.utime(old, (long_ago, long_ago))
    os.utime(models / "blobs" / "strange", (long_ago, long_ago))
    with OllamaDouble(models):
        assert (old.exists(), young.exists()) == (False, True)
        assert not (models / "blobs" / "strange").exists()
    os.utime(young, (long_ago, long_ago))
    (models / "manifests/registry.ollama.ai/library/taught/latest").write_text("{nonsense")
    with OllamaDouble(models):
        assert young.exists(), "no pruning while a manifest does not parse"


def test_its_options_as_recorded(server: OllamaDouble) -> None:
    (bad,) = [e for e in recorded("context") if e["name"] == "bad-option-type"]
    hold(ask(server, bad["request"]), bad["response"], "bad-option-type")
    for asked, applied in ((1, 4), (300, 300), (65536, 2048)):
        body = {"model": "taught", "options": {"num_ctx": asked}}
        ask(server, {"method": "POST", "path": "/api/generate", "body": body})
        (entry,) = ask(server, {"method": "GET", "path": "/api/ps"}).json()["models"]
        assert entry["context_length"] == applied
    assert server.loads == 3


def test_names_on_one_content_share_a_runner(server: OllamaDouble) -> None:
    for name, options in (("taught", {}), ("taught-min", {}), ("taught-min", {"num_ctx": 99})):
        body = {"model": name, "options": options}
        ask(server, {"method": "POST", "path": "/api/generate", "body": body})
    assert server.loads == 2
    assert len(server.runners) == 1


def test_the_python_client_believes_it(server: OllamaDouble, tiny_gguf: Path) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=server.url)
    try:
        assert {m.model for m in client.list().models} >= {"taught:latest"}
        shown = client.show("taught-params")
        assert shown.details.family == "qwen3"
        assert shown.modelinfo["general.architecture"] == "qwen3"
        assert client.generate("taught", keep_alive=-1).done_reason == "load"
        (entry,) = client.ps().models
        assert (entry.model, entry.context_length) == ("taught:latest", 2048)
        assert client.generate("taught", keep_alive=0).done_reason == "unload"
        digest = client.create_blob(tiny_gguf)
        made = client.create("made", files={"m.gguf": digest}, parameters={"num_ctx": 512})
        assert made.status == "success"
        assert client.copy("made", "twin").status == "success"
        assert client.delete("made").status == "success"
        with pytest.raises(ollama.ResponseError, match="not found"):
            client.show("made")
        assert client.show("twin").parameters.split() == ["num_ctx", "512"]
    finally:
        client._client.close()


# ------------------------------------------------------------------------- with a real engine


POCKET = Path(__file__).parents[2] / "src" / "qwharf" / "catalog" / "pocket"


@pytest.fixture(scope="module")
def pocket_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from qwharf.artifacts.convert import convert
    from qwharf.types import Format

    path = tmp_path_factory.mktemp("pocket") / "pocket.gguf"
    convert(POCKET, Format("gguf", "bf16"), path, threads=1)
    return path


@pytest.fixture
def deployed(home: Home, pocket_gguf: Path) -> Iterator[tuple[Any, DeploymentSpec]]:
    """The pocket model on the double, driven by its own client; on a real Ollama if there is."""
    from qwharf.formats.gguf import architecture_from_gguf, read_gguf

    ollama = pytest.importorskip("ollama")
    models = home.path / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(models))
    artifact = home.keep(pocket_gguf)
    architecture = architecture_from_gguf(read_gguf(pocket_gguf))
    spec = home.spec(
        artifact, "ollama", name="pocket", architecture=architecture, context_tokens=1024
    )
    platform = OllamaPlatform()
    with OllamaDouble(models, engines=True) as server:
        home.patch.setenv("OLLAMA_HOST", server.url)
        platform.check(spec)
        platform.deploy(spec, quiet)
        client = ollama.Client(host=server.url)
        try:
            yield client, spec
        finally:
            client._client.close()
            platform.release(spec)


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.mark.engines
def test_a_deployed_model_talks(deployed: tuple[Any, DeploymentSpec]) -> None:
    client, spec = deployed
    hello = [{"role": "user", "content": "What is 2+2?"}]
    same = {"temperature": 0, "num_ctx": spec.context_tokens}
    strict = {"model": "qwharf/pocket", "messages": hello, "options": same}
    thinking = client.chat(**strict, think=True)
    assert thinking.message.thinking
    assert "<think>" not in thinking.message.content
    plain = client.chat(**strict, think=False)
    assert plain.message.thinking is None
    assert plain.message.content.startswith("2 + 2 = ")
    parts = list(client.chat(**strict, think=True, stream=True))
    assert "".join(p.message.content or "" for p in parts) == thinking.message.content
    assert "".join(p.message.thinking or "" for p in parts) == thinking.message.thinking
    assert [p.done for p in parts[-2:]] == [False, True]
    leaks = client.generate("qwharf/pocket", "What is 2+2?", options=same)
    assert leaks.response.startswith("<think>"), "as the real one does"
    raw = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    exact = client.generate("qwharf/pocket", raw, raw=True, options=same)
    assert exact.response == leaks.response
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = client.chat("qwharf/pocket", asked, tools=[TOOL], think=False, options=same)
    for call in called.message.tool_calls or ():
        assert isinstance(call.function.arguments, dict)


@pytest.mark.engines
def test_a_killed_engine_is_replaced_as_recorded(tmp_path: Path, pocket_gguf: Path) -> None:
    """And an option that Ollama does not know, such as those of RoPE, is passed over."""
    models = tmp_path / "models"
    put(models, "taught", pocket_gguf)
    put(models, "base", pocket_gguf)
    faults = {e["name"]: e for e in recorded("faults")}
    with OllamaDouble(models, engines=True) as server:
        for name in ("warm", "after-kill", "killed-idle", "killed-idle-2"):
            exchange = faults[name]
            if name != "killed-idle-2":
                for runner in server.runners.values():
                    assert runner.brain is not None
                    runner.brain.child.kill()
                    runner.brain.child.wait()
            hold(ask(server, exchange["request"]), exchange["response"], name)
        assert server.loads == 3
        (odd,) = [e for e in recorded("push-adapter-yarn") if e["name"] == "rope-option"]
        hold(ask(server, odd["request"]), odd["response"], "rope-option")


@pytest.mark.engines
def test_a_deployed_model_overflows_as_recorded(deployed: tuple[Any, DeploymentSpec]) -> None:
    import ollama

    client, _ = deployed
    long = "word " * 3000
    exchanges = {e["name"]: e for e in recorded("context")}
    theirs = json.loads(json.loads(exchanges["overflow-single"]["response"]["body"])["error"])
    with pytest.raises(ollama.ResponseError) as e:
        client.chat("qwharf/pocket", [{"role": "user", "content": long}])
    assert e.value.status_code == 400
    assert json.loads(e.value.error)["error"]["type"] == theirs["error"]["type"]
    several = [{"role": "user", "content": long}, {"role": "user", "content": "What is 2+2?"}]
    cut = client.chat("qwharf/pocket", several, think=False)
    assert cut.prompt_eval_count < 100, "the oldest is dropped in silence"


@pytest.mark.engines
def test_the_real_ollama(home: Home, pocket_gguf: Path) -> None:
    """Only where an ``ollama`` is on the PATH."""
    program = shutil.which("ollama")
    if program is None or Path(program).read_bytes()[:2] == b"#!":
        pytest.skip("no Ollama on this machine")
    from qwharf.formats.gguf import architecture_from_gguf, read_gguf

    models = home.path / "ollama"
    home.patch.setenv("OLLAMA_MODELS", str(models))
    home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    architecture = architecture_from_gguf(read_gguf(pocket_gguf))
    spec = home.spec(
        home.keep(pocket_gguf), "ollama", architecture=architecture, context_tokens=1024
    )
    platform = OllamaPlatform()
    platform.check(spec)
    try:
        served = platform.deploy(spec, quiet)
        assert served.applied.context_tokens == 1024
        assert platform.status(spec) is not None
        listed = subprocess.run([program, "ls"], capture_output=True, text=True, check=True)
        assert "qwharf/tiny" in listed.stdout
    finally:
        platform.release(spec)
    assert tree(models) == {}
