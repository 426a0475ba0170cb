"""A real server that somebody else started, adopted by its URL."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from daemon_homes import Home, until
from pocket_weights import CONTEXT, Silent, pocket

from qwharf import pipeline, platforms
from qwharf import settings as settings_module
from qwharf.catalog import resolve
from qwharf.cli import add
from qwharf.daemon.starting import free_port
from qwharf.errors import Conflict, EngineError, QwharfError, UsageError
from qwharf.platforms import endpoint_kind
from qwharf.platforms.endpoint_kind import Found, ServedModel
from qwharf.types import DeploymentSpec


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> DeploymentSpec:
    """What somebody else runs."""
    return pocket(tmp_path_factory.mktemp("weights"), "theirs")


@contextmanager
def running(spec: DeploymentSpec, port: int) -> Iterator[subprocess.Popen[bytes]]:
    platform = platforms.get("llama.cpp")
    assert platforms.is_child(platform)
    argv = [a for a in platform.launch(spec, port).argv if a != "--die-with-parent"]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port) or child.poll() is not None)
        yield child
    finally:
        child.kill()
        child.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    settings = settings_module.load(
        {"QWHARF_HOME": str(tmp_path / "home"), "QWHARF_PORT": str(free_port())}
    )
    made = Home(settings)
    yield made
    made.close()


def adopted(port: int, name: str = "mine") -> DeploymentSpec:
    url = endpoint_kind.root(f"127.0.0.1:{port}")
    found = endpoint_kind.look(url, None)
    served = add.chosen(url, found, None)
    model = add.recognised(found, served, "pocket")
    return add.specified(model, found, served, url, name, None, None)


def ask(home: Home, **more: Any) -> Any:
    body = {"model": "mine", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{home.settings.daemon_url}/v1/chat/completions",
        json.dumps(body | more).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@pytest.mark.engines
def test_its_life(theirs: DeploymentSpec, home: Home) -> None:
    port = free_port()
    with running(theirs, port) as server:
        spec = adopted(port)
        assert spec.context_tokens == CONTEXT
        home.client.ensure_running()
        made = home.client.deploy(spec)
        assert made.state == "ready"
        assert (made.engine or "").startswith("llama.cpp ")
        reply = ask(home)
        assert reply["model"] == "mine", "not the name that its owner gave it"
        log = urllib.request.urlopen(
            f"{home.settings.daemon_url}/qwharf/v1/deployments/mine/logs", timeout=60
        ).read()
        assert b"whoever did has its log" in log
        report = pipeline.prove(
            made, home.client, home.settings, Silent(), ["template-token-exact"]
        )
        assert report.passed, report.checks
        server.kill()
        server.wait()
        with pytest.raises(urllib.error.HTTPError) as e:
            until(lambda: not ask(home))
        assert e.value.status in (502, 503)
        e.value.close()
    with running(theirs, port) as server:
        until(lambda: home.client.get("mine").state == "ready")
        assert ask(home)["choices"]
        home.client.remove("mine")
        assert server.poll() is None, "forgetting it stops nothing"
        assert answers(port)


# ------------------------------------------------------------------------------ what add decides


def found(*names: str, kind: str = "vllm", context: int | None = 4096) -> Found:
    models = tuple(ServedModel(name=n, context_tokens=context) for n in names)
    return Found(kind=kind, engine=f"{kind} 1", models=models)


def test_one_model_needs_no_choice() -> None:
    assert add.chosen("url", found("a"), None).name == "a"
    assert add.chosen("url", found("a", "b"), "b").name == "b"


@pytest.mark.parametrize(
    ("there", "wanted", "words"),
    [((), None, "none"), (("a", "b"), None, "a, b"), (("a",), "c", "c")],
)
def test_a_choice_that_cannot_be_made(
    there: tuple[str, ...], wanted: str | None, words: str
) -> None:
    with pytest.raises(UsageError) as e:
        add.chosen("url", found(*there), wanted)
    assert words in e.value.found


def test_models_are_known_by_their_names() -> None:
    for name in ("Qwen/Qwen3-8B", "qwen3:8b"):
        assert add.recognised(found(name), ServedModel(name=name), None).name == "qwen3:8b"
    assert add.recognised(found("x"), ServedModel(name="x"), "pocket").name == "pocket"
    with pytest.raises(UsageError) as e:
        add.recognised(found("x"), ServedModel(name="x"), None)
    assert "--model" in e.value.hint
    with pytest.raises(QwharfError):
        add.recognised(found("x"), ServedModel(name="x"), "no-such-model")


def test_tags_that_moved_are_not_guessed() -> None:
    moved = ServedModel(name="qwen3:4b")
    with pytest.raises(UsageError) as e:
        add.recognised(found("qwen3:4b", kind="ollama"), moved, None)
    assert "ollama show qwen3:4b" in e.value.hint
    assert add.recognised(found("qwen3:4b", kind="vllm"), moved, None).name == "qwen3:4b"


def test_the_context_is_told_or_said() -> None:
    model = resolve("pocket").model
    silent, told = ServedModel(name="a"), ServedModel(name="a", context_tokens=1000)

    def context(served: ServedModel, said: int | None) -> int:
        spec = add.specified(model, found("a"), served, "http://x", None, said, "KEY")
        assert spec.endpoint is not None and spec.endpoint.api_key_variable == "KEY"
        return spec.context_tokens

    assert context(silent, 300) == 300
    assert context(told, None) == 1000
    assert context(told, 300) == 300
    for served, said in ((silent, None), (told, 2000)):
        with pytest.raises(UsageError):
            context(served, said)


@pytest.mark.engines
def test_two_of_one_name_on_different_platforms(theirs: DeploymentSpec, home: Home) -> None:
    port = free_port()
    with running(theirs, port):
        home.client.ensure_running()
        home.client.deploy(replace(theirs, name="mine"))
        with pytest.raises(Conflict) as e:
            home.client.deploy(adopted(port))
        assert "platform llama.cpp" in e.value.found
        assert "qwharf down mine" in e.value.hint


def test_a_server_that_is_not_there(home: Home) -> None:
    with pytest.raises(EngineError):
        adopted(free_port())
