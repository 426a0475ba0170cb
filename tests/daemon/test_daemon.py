"""The real daemon in a process of its own, by its client; engines are stand-ins."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from daemon_homes import Home, is_dead, until
from stand_in_platform import starts, wish

from qwharf import __version__
from qwharf.daemon import runfile
from qwharf.daemon.client import DaemonClient
from qwharf.errors import (
    Conflict,
    DaemonError,
    EngineError,
    InvalidFile,
    PortInUse,
    StorageError,
    UnknownDeployment,
    UsageError,
)
from qwharf.types import Report


def call(home: Home, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", home.settings.port, timeout=30)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    line.request(method, path, content, home.client.headers())
    answer = line.getresponse()
    data = answer.read()
    line.close()
    return answer.status, data


# ------------------------------------------------------------------------------- deployments


def test_the_life_of_a_deployment(home: Home, tmp_path: Path) -> None:
    home.serve()
    client = home.client
    assert client.list() == []
    spec = wish(tmp_path, slow_steps=3)
    told: list[str] = []
    deployment = client.deploy(spec, told.append)
    assert told[0] == "starting the engine"
    assert told[-4:-1] == ["step 0", "step 1", "step 2"]
    assert deployment.state == "ready"
    assert deployment.spec == spec
    assert deployment.base_url == f"http://127.0.0.1:{home.settings.port}/v1"
    again = client.deploy(spec)
    assert replace(again, rss_bytes=None) == replace(deployment, rss_bytes=None)
    assert again.rss_bytes is not None
    assert [d.spec.name for d in client.list()] == ["engine"]
    assert len(starts(spec)) == 1

    lines = list(client.logs("engine"))
    assert lines[0].startswith("--- qwharf: starting")
    assert lines[-1] == "phase: listening"
    assert list(client.logs("engine", tail=2)) == lines[-2:]
    assert list(client.logs("engine", tail=0)) == []

    report = Report(
        deployment="engine",
        base_url="x",
        model="m",
        thinking="hybrid",
        checks=(),
        created_at=1.0,
        spec=spec,
    )
    assert client.report("engine") is None
    client.put_report("engine", report)
    assert client.report("engine") == report
    assert client.get("engine").verified == "pass"

    client.remove("engine")
    assert is_dead(starts(spec)[0][0])
    assert client.list() == []
    with pytest.raises(UnknownDeployment) as e:
        client.get("engine")
    assert "last log is kept" in e.value.hint
    assert client.report("engine") == report, "what was found of it is kept"


def test_errors_arrive_as_what_they_are(home: Home, tmp_path: Path) -> None:
    home.serve()
    client = home.client
    told: list[str] = []
    with pytest.raises(EngineError) as died:
        client.deploy(wish(tmp_path, "dies", die="bad weights"), told.append)
    assert died.value.found == "bad weights"
    assert client.get("dies").detail == "bad weights"
    with pytest.raises(InvalidFile, match="nonsense"):
        client.deploy(wish(tmp_path, "refused", refuse="nonsense"))
    with pytest.raises(UsageError, match=r"llama\.cpp"):
        client.deploy(replace(wish(tmp_path), platform="nowhere"))
    with pytest.raises(UsageError):
        client.deploy(replace(wish(tmp_path), name="../x"))
    client.deploy(wish(tmp_path))
    with pytest.raises(Conflict):
        client.deploy(replace(wish(tmp_path), context_tokens=512))
    for use in (client.get, client.remove, client.report, lambda n: list(client.logs(n))):
        with pytest.raises(UnknownDeployment):
            use("nobody/../ü %")
    assert home.client.status()["deployments"] == 2


def test_following_a_log(home: Home, tmp_path: Path) -> None:
    home.serve()
    spec = wish(tmp_path)
    home.client.deploy(spec)
    got: list[str] = []

    def follow() -> None:
        for line in home.client.logs("engine", tail=1, follow=True):
            got.append(line)

    follower = threading.Thread(target=follow)
    follower.start()
    until(lambda: got)  # it follows
    first = starts(spec)[0][0]
    until(lambda: is_dead(first) or os.kill(first, signal.SIGKILL))
    until(lambda: len(starts(spec)) == 2 and home.client.get("engine").state == "ready")
    home.client.remove("engine")
    follower.join(240)
    assert not follower.is_alive(), "it ends with the deployment"
    assert got[0] == "phase: listening"
    assert f"--- qwharf: engine {first} ended: killed by SIGKILL" in got
    assert got.count("phase: listening") == 2


def test_a_command_that_dies_takes_nothing_with_it(home: Home, tmp_path: Path) -> None:
    home.serve()
    spec = wish(tmp_path, slow_steps=10)

    def give_up(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        home.client.deploy(spec, give_up)
    assert home.client.deploy(spec).state == "ready"
    assert len(starts(spec)) == 1


def test_two_deploys_from_two_commands(home: Home, tmp_path: Path) -> None:
    home.serve()
    spec = wish(tmp_path, slow_steps=5)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: home.client.deploy(spec), range(4)))
    assert {d.pid for d in found} == {starts(spec)[0][0]}
    assert len(starts(spec)) == 1


# ---------------------------------------------------------------------------------- requests


def test_probes_reach_the_engine_and_only_what_tells(home: Home, tmp_path: Path) -> None:
    home.serve()
    home.client.deploy(wish(tmp_path))
    base = home.client.probe_url("engine").removeprefix(f"http://127.0.0.1:{home.settings.port}")
    assert call(home, "POST", f"{base}/tokenize", {}) == (
        200,
        b'{"method": "POST", "path": "/tokenize"}',
    )
    assert call(home, "GET", f"{base}/slots")[0] == 200
    for method, path in [("POST", "/slots"), ("GET", "/crash"), ("GET", "/../crash"), ("GET", "")]:
        assert call(home, method, base + path)[0] in (404, 405)
    assert len(home.client.list()) == 1
    status, body = call(home, "GET", base.replace("engine", "nobody") + "/slots")
    assert status == 404
    assert json.loads(body)["error"]["code"] == "unknown_deployment"


def test_an_engine_that_dies_of_a_probe(home: Home, tmp_path: Path) -> None:
    home.serve()
    spec = wish(tmp_path, crash_on_slots=True)
    home.client.deploy(spec)
    path = "/qwharf/v1/deployments/engine/probe"
    status, body = call(home, "GET", f"{path}/slots")
    assert status == 502
    assert json.loads(body)["error"]["code"] == "engine_error"
    assert call(home, "POST", f"{path}/tokenize", {})[0] == 200
    assert len(starts(spec)) == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"name": 1}', b"[" * 100_000, b'"\xff"', b"\x00" * 1000],
    ids=range(8),
)
def test_bodies_that_are_no_spec(body: bytes, home: Home) -> None:
    home.serve()
    for path in ("deployments", "deployments/x/reports"):
        status, answer = call(home, "POST", f"/qwharf/v1/{path}", body)
        assert status == 400
        assert json.loads(answer)["error"]["code"] == "usage_error"
    assert home.client.status()["program"] == "qwharf"


def test_numbers_that_are_none(home: Home, tmp_path: Path) -> None:
    home.serve()
    home.client.deploy(wish(tmp_path))
    for text in ("-1", "x", "1e9", "٣", "9" * 30):
        path = f"/qwharf/v1/deployments/engine/logs?tail={quote(text)}"
        assert call(home, "GET", path)[0] == 400
    assert call(home, "GET", "/qwharf/v1/events?limit=5")[0] == 200
    assert call(home, "GET", "/qwharf/v1/nothing")[0] == 404
    assert call(home, "PUT", "/qwharf/v1/status")[0] == 405


def test_a_key_is_needed_and_told(new_home: Callable[..., Home]) -> None:
    home = new_home(QWHARF_API_KEY="secret")
    home.serve()
    assert home.client.status()["version"] == __version__
    for key, words in ((None, "no key"), ("wrong", "does not accept")):
        other = DaemonClient(replace(home.settings, api_key=key))
        assert other.is_running()
        with pytest.raises(DaemonError, match=words) as e:
            other.list()
        assert "QWHARF_API_KEY" in e.value.hint
        with pytest.raises(DaemonError, match=words):
            other.shutdown()


# ---------------------------------------------------------------------------- start and stop


def test_starting_in_the_background(new_home: Callable[..., Home]) -> None:
    """Many commands at once start one daemon, which has none of their weight."""
    home = new_home()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: home.client.ensure_running(), range(4)))
    status = home.client.status()
    assert status["version"] == __version__
    assert status["state_dir"] == str(home.settings.state_dir)
    process = psutil.Process(status["pid"])
    assert process.memory_info().rss < 80 * 2**20
    assert process.cwd() == str(home.settings.state_dir)
    log = (home.settings.log_dir / "daemon.log").read_text("utf-8")
    assert log.count("listens at") == 1
    home.client.shutdown()
    assert not home.client.is_running()
    until(lambda: is_dead(status["pid"]))
    assert not runfile.run_path(home.settings).exists()
    with pytest.raises(DaemonError, match="none running"):
        home.client.list()
    for use in (home.client.get, home.client.remove):
        with pytest.raises(UnknownDeployment, match="no daemon running"):
            use("x")


def test_commands_that_only_look_start_and_make_nothing(new_home: Callable[..., Home]) -> None:
    home = new_home()
    assert not home.client.is_running()
    assert not home.settings.state_dir.exists()


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'numpy', 'tokenizers', 'jinja2', 'huggingface_hub', 'xllamacpp', 'httpx2', 'tqdm'}"
    checks = {
        "import qwharf.daemon.server, qwharf.platforms.llama_cpp": heavy,
        "import qwharf.daemon.client": "{'aiohttp', 'sqlite3', 'psutil', 'http.client', 'asyncio'"
        ", 'subprocess'} | " + heavy,
    }
    for code, absent in checks.items():
        checked = f"import sys; {code}; x = ({absent}) & set(sys.modules); assert not x, x"
        subprocess.run([sys.executable, "-c", checked], check=True)


def test_the_port_belongs_to_another_program(new_home: Callable[..., Home]) -> None:
    """One that would even answer; it is neither used nor sent the key."""
    home = new_home(QWHARF_API_KEY="secret")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", home.settings.port)) as other:

        def answer() -> None:
            while True:
                try:
                    line, _ = other.accept()
                except OSError:
                    return
                heard.append(line.recv(65536))
                line.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                line.close()

        threading.Thread(target=answer, daemon=True).start()
        assert not home.client.is_running()
        with pytest.raises(PortInUse) as e:
            home.client.ensure_running()
        other.shutdown(socket.SHUT_RDWR)
    assert e.value.subject == f"127.0.0.1:{home.settings.port}"
    assert f"process {os.getpid()}" in e.value.found
    assert "QWHARF_PORT" in e.value.hint
    assert not any(b"secret" in x for x in heard)
    assert not home.client.is_running()
    home.client.ensure_running()


def test_the_port_belongs_to_the_daemon_of_another_home(new_home: Callable[..., Home]) -> None:
    first = new_home("first")
    first.serve()
    second = new_home("second", QWHARF_PORT=str(first.settings.port))
    assert not second.client.is_running()
    with pytest.raises(PortInUse, match="another home") as e:
        second.client.ensure_running()
    assert str(first.settings.state_dir) in e.value.found
    with pytest.raises(DaemonError):
        second.client.list()


def test_one_daemon_per_home_wherever_it_listens(home: Home) -> None:
    home.serve()
    elsewhere = DaemonClient(replace(home.settings, port=1))
    assert elsewhere.status()["pid"] == home.daemons[0].pid, "found by its run file"
    elsewhere.ensure_running()
    done = subprocess.run(
        [sys.executable, "-m", "qwharf", "serve"], env=home.env, capture_output=True, text=True
    )
    assert done.returncode == Conflict.exit_code
    assert str(home.daemons[0].pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_another_version_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.serve()
    monkeypatch.setattr("qwharf.daemon.launching.__version__", "99.0")
    with pytest.raises(DaemonError, match=r"99\.0") as e:
        home.client.ensure_running()
    assert f"kill {home.daemons[0].pid}" in e.value.hint


def test_a_home_that_cannot_be_written(new_home: Callable[..., Home], tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(StorageError) as e:
        new_home().client.ensure_running()
    assert "QWHARF_HOME" in e.value.hint


def test_damaged_state_is_told_by_the_command(home: Home) -> None:
    home.settings.state_dir.mkdir(parents=True)
    (home.settings.state_dir / "state.db").write_bytes(b"x" * 5000)
    with pytest.raises(InvalidFile, match="damaged"):
        home.client.ensure_running()
    assert not home.client.is_running()


def test_a_daemon_that_cannot_even_begin(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.settings.log_dir.mkdir(parents=True)
    (home.settings.state_dir / "sitecustomize.py").write_text("raise SystemExit('no luck')")
    monkeypatch.setenv("PYTHONPATH", str(home.settings.state_dir))
    with pytest.raises(DaemonError, match="no luck"):
        home.client.ensure_running()


def test_a_public_address_needs_a_key(home: Home) -> None:
    from qwharf.daemon import server

    with pytest.raises(UsageError, match="QWHARF_HOST"):
        server.run(replace(home.settings, host="0.0.0.0"))


def test_an_address_of_another_machine(home: Home) -> None:
    from qwharf.daemon import server

    with pytest.raises(UsageError, match="QWHARF_HOST"):
        server.run(replace(home.settings, host="192.0.2.1", api_key="k"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_graceful_stop_and_a_return(number: int, home: Home, tmp_path: Path) -> None:
    daemon = home.serve()
    spec = wish(tmp_path, helper=True)
    home.client.deploy(spec)
    got: list[str] = []
    followers = [
        threading.Thread(
            target=lambda: [got.append(x) for x in home.client.logs("engine", follow=True)]
        )
        for _ in range(2)
    ]
    for follower in followers:
        follower.start()
    until(lambda: got.count("phase: listening") == len(followers))
    daemon.send_signal(number)
    assert daemon.wait(240) == 0
    for follower in followers:
        follower.join(240)
        assert not follower.is_alive()
    assert is_dead(starts(spec)[0][0])
    assert not home.client.is_running()
    home.serve()
    until(lambda: home.client.get("engine").state == "ready")
    assert len(starts(spec)) == 2


def test_a_stop_in_the_middle_of_a_start(home: Home, tmp_path: Path) -> None:
    daemon = home.serve()
    spec = wish(tmp_path, silent=True, stubborn=True)
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(home.client.deploy, spec)
        until(lambda: starts(spec))
        daemon.send_signal(signal.SIGTERM)
        with pytest.raises(DaemonError):
            deploying.result(240)
    assert daemon.wait(240) == 0
    assert is_dead(starts(spec)[0][0])


def test_a_killed_daemon_leaves_no_engine_and_comes_back(home: Home, tmp_path: Path) -> None:
    daemon = home.serve()
    ready, starting = wish(tmp_path, "ready"), wish(tmp_path, "starting", slow_steps=50)
    home.client.deploy(ready)
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(home.client.deploy, starting)
        until(lambda: starts(starting))
        daemon.kill()
        with pytest.raises(DaemonError):
            deploying.result(240)
    daemon.wait()
    until(lambda: is_dead(starts(ready)[0][0]) and is_dead(starts(starting)[0][0]))
    assert not home.client.is_running()
    wish(tmp_path, "starting")
    home.serve()
    until(lambda: [d.state for d in home.client.list()] == ["ready", "ready"])
    assert len(starts(ready)) == len(starts(starting)) == 2
