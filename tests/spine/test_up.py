"""From weights to a proven deployment, by the command line alone, with everything real."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwharf import settings
from qwharf.daemon.client import DaemonClient

pytestmark = pytest.mark.engines


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text("utf-8")


def half_made(home: Any) -> list[Path]:
    """What a conversion that did not end has left."""
    return list((home.folder / "data").rglob("*.partial"))


def test_the_whole_way(home: Any) -> None:
    done = home.ok("up", "pocket", "--format", "gguf:q4_k_m", "--name", "little", timeout=600)
    assert done["report"]["spec"]["name"] == "little"
    assert not [c for c in done["report"]["checks"] if c["status"] == "fail"]
    assert len([c for c in done["report"]["checks"] if c["status"] == "pass"]) >= 10
    assert done["plan"]["format"] == "gguf:q4_k_m"

    (shown,) = home.ok("ps")
    assert (shown["state"], shown["verified"]) == ("ready", "pass")
    assert shown["spec"]["context_tokens"] == done["plan"]["context_tokens"]

    answer = home.ok("chat", "little", "What is the capital of France?", "--no-thinking")
    assert answer["content"].strip()
    assert not answer["reasoning_content"]

    os.kill(shown["pid"], signal.SIGKILL)
    again = home.ok("chat", "little", "What is the capital of France?", "--no-thinking")
    assert again["content"] == answer["content"] or again["content"].strip()
    (after,) = home.ok("ps")
    assert after["pid"] != shown["pid"]
    assert after["restarts"] == 1

    same = home.ok(
        "up", "pocket", "--format", "gguf:q4_k_m", "--name", "little", timeout=600
    )  # nothing to do but to prove
    assert same["deployment"]["pid"] == after["pid"]

    taken = home.run("up", "pocket", "--format", "gguf:q8_0", "--name", "little")
    assert taken.returncode == 13, taken.stderr
    assert "little" in taken.stderr

    assert home.ok("down", "little")["stopped"] == ["little"]
    assert home.ok("ps") == []
    wait_until(lambda: not alive(after["pid"]))


def test_two_at_once_do_it_once(home: Any) -> None:
    words = ("up", "pocket", "--format", "gguf:q8_0", "--json")
    first, second = home.start(*words), home.start(*words)
    outcomes = [child.communicate(timeout=600) for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outcomes
    pids = {json.loads(out)["deployment"]["pid"] for out, _ in outcomes}
    assert len(pids) == 1
    assert len(home.ok("ps")) == 1


def test_a_killed_daemon_leaves_no_engine_and_comes_back(home: Any) -> None:
    home.ok("up", "pocket", "--format", "gguf:q8_0", timeout=600)
    (before,) = home.ok("ps")
    daemon = DaemonClient(settings.load(home.env)).status()
    os.kill(int(daemon["pid"]), signal.SIGKILL)
    wait_until(lambda: not alive(before["pid"]))
    serving = home.start("serve")
    try:
        wait_until(lambda: [d["state"] for d in home.ok("ps")] == ["ready"])
        (after,) = home.ok("ps")
        assert after["pid"] != before["pid"]
        assert home.ok("chat", "pocket", "Hi", "--no-thinking")["content"]
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=60)
    assert serving.returncode == 0
    wait_until(lambda: not alive(after["pid"]))


def test_killed_at_any_moment_it_goes_on_the_next_time(home: Any) -> None:
    rng = random.Random(7)
    for _ in range(6):
        child = home.start("up", "pocket", "--format", "gguf:q4_k_m")
        time.sleep(rng.uniform(0.2, 4))
        child.kill()
        child.communicate()
    done = home.ok("up", "pocket", "--format", "gguf:q4_k_m", timeout=600)
    assert done["deployment"]["state"] == "ready"
    assert home.ok("store", "verify") == {"problems": []}
    assert not half_made(home)


def test_dry_run_touches_nothing_and_says_everything(home: Any) -> None:
    shown = home.ok("up", "pocket", "--format", "gguf:q8_0", "--context", "1024", "--dry-run")
    assert not home.folder.exists()
    assert shown["plan"]["context_tokens"] == 1024
    assert shown["memory_bytes"] == sum(x["size_bytes"] for x in shown["plan"]["memory"])
    assert "qwharf.platforms.llama_server" in shown["launch"]["argv"]
    assert shown["source"]["converts"] is True
