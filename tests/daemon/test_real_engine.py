"""The daemon with the embedded engine and the pocket model: what users will see."""

import http.client
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from daemon_homes import Home, is_dead, until
from pocket_weights import pocket

from qwharf import settings as settings_module
from qwharf.daemon.starting import free_port
from qwharf.errors import InvalidFile, QwharfError
from qwharf.types import DeploymentSpec

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> DeploymentSpec:
    return pocket(tmp_path_factory.mktemp("weights"), "pocket")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    settings = settings_module.load(
        {"QWHARF_HOME": str(tmp_path / "home"), "QWHARF_PORT": str(free_port())}
    )
    made = Home(settings)
    yield made
    made.close()


def ask(home: Home, **more: Any) -> dict[str, Any]:
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 4,
        "temperature": 0,
        **more,
    }
    request = urllib.request.Request(
        f"{home.client.url()}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def test_from_deploy_to_the_end(home: Home, spec: DeploymentSpec) -> None:
    """Everything in one life, because starting takes the time."""
    client = home.client
    client.ensure_running()
    told: list[str] = []
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: client.deploy(spec, told.append), range(2)))
    first = both[0].pid
    assert first is not None
    assert {d.pid for d in both} == {first}, "two at once make one start"
    assert "loading weights" in told
    assert both[0].state == "ready"
    assert both[0].engine is not None and both[0].engine.startswith("llama.cpp (xllamacpp ")
    assert both[0].memory_bytes is not None
    assert both[0].memory_bytes > spec.artifact_path.stat().st_size // 2
    assert ask(home)["usage"]["completion_tokens"] == 4
    assert psutil.Process(client.status()["pid"]).memory_info().rss < 80 * 2**20

    os.kill(first, signal.SIGKILL)
    until(lambda: is_dead(first))  # a request that reaches it as it dies is told so, not repeated
    assert ask(home)["usage"]["completion_tokens"] == 4, "the next request finds a new engine"
    second = client.get("pocket")
    assert second.restarts == 1
    assert second.pid not in (None, first)

    daemon = int(client.status()["pid"])
    os.kill(daemon, signal.SIGKILL)
    until(lambda: is_dead(daemon) and is_dead(second.pid or 0))
    client.ensure_running()
    assert ask(home)["usage"]["completion_tokens"] == 4, "a request waits for the recovery"
    third = client.get("pocket").pid

    client.shutdown()
    until(lambda: is_dead(third or 0))
    client.ensure_running()
    until(lambda: client.get("pocket").state == "ready")
    client.remove("pocket")
    assert client.list() == []


def test_a_stop_lets_streams_end(home: Home, spec: DeploymentSpec) -> None:
    client = home.client
    client.ensure_running()
    pid = client.deploy(spec).pid
    body = {
        "model": "pocket",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 300,
        "stream": True,
        "ignore_eos": True,
    }
    line = http.client.HTTPConnection("127.0.0.1", home.settings.port, timeout=120)
    headers = {"content-type": "application/json"}
    line.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = line.getresponse()
    events = [answer.readline()]
    stopping = threading.Thread(target=client.shutdown)
    stopping.start()
    events += [x for x in answer.read().split(b"\n") if x]
    stopping.join(240)
    line.close()
    assert events[0].startswith(b"data: {")
    assert events[-1] == b"data: [DONE]" or b'"error"' in events[-1]
    until(lambda: is_dead(pid or 0))


def test_weights_that_would_end_the_engine(
    home: Home, spec: DeploymentSpec, tmp_path: Path
) -> None:
    client = home.client
    client.ensure_running()
    bad = tmp_path / "bad.gguf"
    data = spec.artifact_path.read_bytes()
    for content in (b"", b"GGUF", data[: len(data) // 2], data[:200] + b"\xff" * 200 + data[400:]):
        bad.write_bytes(content)
        with pytest.raises(InvalidFile) as e:
            client.deploy(replace(spec, artifact_path=bad))
        assert str(bad) in str(e.value)
    bad.unlink()
    with pytest.raises(QwharfError):
        client.deploy(replace(spec, artifact_path=bad))
    assert client.list() == []
