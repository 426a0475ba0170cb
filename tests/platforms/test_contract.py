"""What every platform that we start must do, on real engines and real files.

What services must do is in ``test_service_contract.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_process import PATIENCE_SECONDS, Engine, free_port, spec_of, started

from qwharf import platforms
from qwharf.errors import FormatUnavailable, InvalidFile, QwharfError, UsageError
from qwharf.memory import llama_cpp_lines
from qwharf.platforms import Platform
from qwharf.testing import TINY
from qwharf.types import DeploymentSpec, Format

GOLDEN = Path(__file__).parent / "golden"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")


@dataclass
class Case:
    """A platform and a deployment that it can run here."""

    platform: Platform
    spec: DeploymentSpec


CHILDREN = [name for name in platforms.names() if platforms.is_child(platforms.get(name))]


@pytest.fixture(scope="module", params=CHILDREN)
def case(request: pytest.FixtureRequest, tiny_gguf: Path) -> Case:
    return Case(platforms.get(request.param), spec_of(tiny_gguf, platform=request.param))


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    spec = replace(case.spec, parallel=2)
    case.platform.check(spec)
    with started(case.platform, spec, tmp_path_factory.mktemp("log") / "engine.log") as engine:
        assert engine.await_ready(), engine.log()
        yield engine


# ------------------------------------------------------------------------------- what it is


def test_names_lead_to_platforms() -> None:
    assert platforms.names()[0] == "llama.cpp"
    for name in platforms.names():
        assert platforms.get(name).name == name
    with pytest.raises(UsageError) as e:
        platforms.get("llama")
    assert "llama.cpp" in e.value.expected


def test_it_says_what_it_is(case: Case) -> None:
    here = case.platform.availability()
    assert here.installed
    assert here.version
    assert Path(here.where or "").exists()
    assert case.platform.engine().startswith(case.platform.name)
    assert here.version in case.platform.engine()
    assert case.spec.format in case.platform.formats()


def test_asking_loads_no_engine(case: Case) -> None:
    """The daemon asks all this, and must neither crash with an engine nor weigh as much."""
    code = (
        "import sys; from qwharf import platforms\n"
        f"p = platforms.get({case.platform.name!r})\n"
        "p.availability(); p.engine(); p.formats()\n"
        "print('xllamacpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


# -------------------------------------------------------------------------------- launching

GOLDEN_SPECS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parallel": {"parallel": 4, "context_tokens": 8192, "kv_cache_type": "q8_0", "threads": None},
    "gpu": {"gpu_layers": 4, "cpu_moe_layers": 2, "name": "on-gpu"},
    "stretched": {
        "context_tokens": 100_000,
        "architecture": replace(TINY, max_position_embeddings=40_960),
    },
}


@pytest.mark.parametrize("name", GOLDEN_SPECS)
def test_the_command_is_as_written_down(name: str, case: Case) -> None:
    spec = replace(case.spec, artifact_path=Path("/models/m.gguf"), **GOLDEN_SPECS[name])
    launch = case.platform.launch(spec, 40_123)
    assert launch == case.platform.launch(spec, 40_123)
    words = ["PYTHON" if w == sys.executable else w for w in launch.argv]
    lines = [*(f"{k}={v}" for k, v in sorted(launch.env.items())), " ".join(words).strip()]
    written = (GOLDEN / f"{case.platform.name}-{name}.txt").read_text("utf-8")
    assert "\n".join(lines).replace(" --", "\n  --") + "\n" == written
    assert launch.base_url == "http://127.0.0.1:40123"


# --------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({"format": Format("safetensors", "bf16")}, FormatUnavailable, "safetensors:bf16"),
        ({"format": Format("gguf", "q9_x")}, FormatUnavailable, "gguf:q9_x"),
        ({"context_tokens": 0}, UsageError, "0"),
        ({"context_tokens": -5}, UsageError, "-5"),
        ({"context_tokens": 2**40}, UsageError, "1099511627776"),
        ({"context_tokens": 8193}, UsageError, "8,192"),
        ({"parallel": 0}, UsageError, "0"),
        ({"parallel": 100_000}, UsageError, "100000"),
        ({"threads": 0}, UsageError, "0"),
        ({"threads": 10**6}, UsageError, "1000000"),
        ({"gpu_layers": -1}, UsageError, "-1"),
        ({"cpu_moe_layers": -1}, UsageError, "-1"),
        ({"kv_cache_type": "fp8"}, UsageError, "q8_0"),
        ({"artifact_path": Path("/nonexistent/model.gguf")}, QwharfError, "/nonexistent"),
        ({"architecture": replace(TINY, num_hidden_layers=4)}, InvalidFile, "num_hidden_layers"),
        ({"architecture": replace(TINY, head_dim=128)}, InvalidFile, "head_dim"),
    ],
)
def test_nonsense_is_refused(
    fields: dict[str, Any], error: type[QwharfError], names: str, case: Case
) -> None:
    with pytest.raises(error) as e:
        case.platform.check(replace(case.spec, **fields))
    told = f"{e.value.subject} {e.value.found} {e.value.expected}"
    assert names in told
    assert e.value.found
    assert e.value.hint


def test_sense_is_not_refused(case: Case) -> None:
    for fields in (
        {},
        {"context_tokens": 1},
        {"context_tokens": 8192, "parallel": 3, "kv_cache_type": "q4_0"},
        {"threads": None},
    ):
        case.platform.check(replace(case.spec, **fields))


# ---------------------------------------------------------------------------------- serving


@pytest.mark.engines
def test_it_answers(engine: Engine) -> None:
    wishes: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}
    answer = engine.chat("the", **wishes)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["model"] == "tiny"
    events = list(engine.stream("the", stream_options={"include_usage": True}, **wishes))
    assert len(events) > 2
    assert events[-1]["usage"]["completion_tokens"] == 5


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
def test_it_serves_nothing_to_browsers(engine: Engine) -> None:
    assert engine.get("/").status_code == 404
    answer = engine.get("/v1/models", Origin="http://evil.example")
    allowed = answer.headers.get("access-control-allow-origin", "")
    assert allowed not in ("*", "null", "http://evil.example")


@pytest.mark.engines
def test_it_refuses_embeddings_clearly(engine: Engine) -> None:
    refused = engine.post("/v1/embeddings", {"input": "the"})
    assert refused.status_code == 501
    assert "embeddings" in refused.json()["error"]["message"]


@pytest.mark.engines
def test_it_stays_alive_when_asked_nonsense(engine: Engine) -> None:
    for body in (
        {"messages": "x"},
        {"messages": [{"role": "user", "content": "x"}], "grammar": "root ::= ("},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": -7, "temperature": -1},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        [],
    ):
        engine.post("/v1/chat/completions", body)
    assert engine.chat("the")["choices"]


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


# ----------------------------------------------------------------------------------- ending


@pytest.mark.engines
def test_it_stops_when_told(case: Case, tmp_path: Path) -> None:
    """In the middle of a stream, too."""
    with started(case.platform, case.spec, tmp_path / "log") as engine:
        assert engine.await_ready()
        events = engine.stream("the", max_tokens=600, ignore_eos=True)
        next(events)
        engine.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Exception):  # the stream may end in any way
            list(events)
        assert engine.await_end() == 0
        assert "told to" in case.platform.explain(engine.log(), 0)


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


@pytest.mark.engines
def test_a_killed_engine_is_explained(case: Case, tmp_path: Path) -> None:
    with started(case.platform, case.spec, tmp_path / "log") as engine:
        assert engine.await_ready()
        os.kill(engine.process.pid, signal.SIGKILL)
        why = case.platform.explain(engine.log(), engine.await_end())
    assert "SIGKILL" in why
    assert "memory" in why


@pytest.mark.engines
def test_a_taken_port_is_explained(case: Case, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine = Engine(case.platform.launch(case.spec, port), tmp_path / "log")
        code = engine.await_end()
        engine.end()
    assert code > 0
    assert case.platform.explain(engine.log(), code) == f"port {port} of 127.0.0.1 is in use"
