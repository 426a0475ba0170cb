"""What llama.cpp's server must do beside the contract: for the gateway, verify and plans."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from child_cases import Case, Weights, case_of
from engine_process import PATIENCE_SECONDS, Engine, free_port, started

from qwharf.memory import llama_cpp_lines

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")


@pytest.fixture(scope="module")
def case(weights: Weights) -> Case:
    return case_of("llama.cpp", weights)


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    spec = replace(case.spec, parallel=2)
    with started(case.platform, spec, tmp_path_factory.mktemp("log") / "engine.log") as engine:
        assert engine.await_ready(), engine.log()
        yield engine


@pytest.mark.engines
def test_it_shows_what_verify_asks_for(engine: Engine) -> None:
    messages = [{"role": "user", "content": "the"}]
    prompt = engine.post("/apply-template", {"messages": messages}).json()["prompt"]
    assert prompt == "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\n"
    asked = {"content": prompt, "add_special": True, "parse_special": True}
    assert len(engine.post("/tokenize", asked).json()["tokens"]) > 4
    engine.chat("the", temperature=0.25, max_tokens=1)
    told = [s["params"]["temperature"] for s in engine.get("/slots").json() if "params" in s]
    assert pytest.approx(0.25) in told
    assert "tokens_total" in engine.get("/metrics").text


@pytest.mark.engines
@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_comes_apart_from_the_answer(stream: bool, engine: Engine) -> None:
    grammar = 'root ::= "<think>\\nis it\\n</think>\\n\\nit is" '
    fields = {"grammar": grammar, "max_tokens": 40, "temperature": 0}
    if stream:
        deltas = [e["choices"][0]["delta"] for e in engine.stream("the", **fields) if e["choices"]]
        reasoning = "".join(d.get("reasoning_content") or "" for d in deltas)
        content = "".join(d.get("content") or "" for d in deltas)
    else:
        message = engine.chat("the", **fields)["choices"][0]["message"]
        reasoning, content = message["reasoning_content"], message["content"]
    assert (reasoning.strip(), content.strip()) == ("is it", "it is")


@pytest.mark.engines
def test_each_request_gets_the_whole_context(engine: Engine) -> None:
    """Two slots of 700 tokens: either takes a prompt of 600, and neither one of 800."""
    contexts = [slot["n_ctx"] for slot in engine.get("/slots").json()]
    assert len(contexts) == 2
    assert all(700 <= context < 700 + 256 for context in contexts)
    usage = engine.chat("x" * 600, max_tokens=1)["usage"]
    assert usage["prompt_tokens"] > 600
    body = {"messages": [{"role": "user", "content": "x" * 800}], "max_tokens": 1}
    refused = engine.post("/v1/chat/completions", body)
    assert refused.status_code == 400
    assert "context" in refused.json()["error"]["message"]


@pytest.mark.engines
def test_it_refuses_embeddings_clearly(engine: Engine) -> None:
    refused = engine.post("/v1/embeddings", {"input": "the"})
    assert refused.status_code == 501
    assert "embeddings" in refused.json()["error"]["message"]


@pytest.mark.engines
def test_it_tells_what_it_allocated(engine: Engine, case: Case) -> None:
    applied = case.platform.applied(engine.log())
    spec = case.spec
    lines = {
        line.label: line.size_bytes
        for line in llama_cpp_lines(
            spec.architecture, spec.format, context_tokens=spec.context_tokens, parallel=2
        )
    }
    slack = 2**20 // 50  # its log has two digits
    for found, label in (
        (applied.weights_bytes, "weights"),
        (applied.kv_bytes, "KV cache"),
        (applied.compute_bytes, "compute buffer"),
        (applied.output_bytes, "output buffer"),
    ):
        assert found == pytest.approx(lines[label], rel=0.03, abs=slack), label
    assert applied.total_bytes == sum(applied.lines.values())
    assert applied.context_tokens == 768
    phases = [p for p in map(case.platform.phase, engine.log()) if p is not None]
    assert phases[0] == "starting the engine"
    assert "loading weights" in phases
    assert phases[-1] == "ready"


@pytest.mark.engines
def test_it_rests_when_idle(engine: Engine) -> None:
    engine.chat("the")
    process = psutil.Process(engine.process.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(3)
    assert sum(process.cpu_times()[:2]) - before < 0.3


@pytest.mark.engines
def test_it_ends_when_its_stdin_does(case: Case, tmp_path: Path) -> None:
    with started(case.platform, case.spec, tmp_path / "log") as engine:
        assert engine.await_ready()
        assert engine.process.stdin is not None
        engine.process.stdin.close()
        assert engine.await_end() == 0


@pytest.mark.engines
@LINUX
@pytest.mark.parametrize("when", ["loading", "ready"])
def test_it_ends_with_its_parent(when: str, case: Case, tmp_path: Path) -> None:
    """A parent that is killed, and leaves no pipe behind."""
    launch = case.platform.launch(case.spec, free_port())
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({list(launch.argv)!r}, stdin=subprocess.DEVNULL,\n"
        f"    stderr=open({str(tmp_path / 'log')!r}, 'w'))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        mark = {"loading": "process", "ready": "ready"}[when]
        await_line(tmp_path / "log", mark)
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        child.wait(PATIENCE_SECONDS)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def await_line(log: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if log.exists() and text in log.read_text("utf-8", "replace"):
            return
        time.sleep(0.02)
    raise AssertionError(f"no {text!r} in the log")
