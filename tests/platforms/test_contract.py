"""What every platform that we start must do, on real engines and real files.

What services must do is in ``test_service_contract.py``; golden commands are in
``test_launches.py``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from child_cases import Case, Weights, case_of, installed_ones, names, runnable
from engine_process import Engine, started

from qwharf import platforms
from qwharf.errors import FormatUnavailable, InvalidFile, QwharfError, UsageError
from qwharf.testing import TINY
from qwharf.types import Format


@pytest.fixture(scope="module", params=names())
def case(request: pytest.FixtureRequest, weights: Weights) -> Case:
    return case_of(request.param, weights)


@pytest.fixture(scope="module", params=installed_ones())
def here(request: pytest.FixtureRequest, weights: Weights) -> Case:
    """The case, where its engine can serve."""
    return runnable(case_of(request.param, weights))


@pytest.fixture(scope="module")
def engine(here: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    spec = replace(here.spec, parallel=2)
    with started(here.platform, spec, tmp_path_factory.mktemp("log") / "engine.log") as engine:
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
    assert case.platform.engine().startswith(case.platform.name)
    assert case.spec.format in case.platform.formats()
    if here.installed:
        assert here.version
        assert Path(here.where or "").exists()
        assert here.version in case.platform.engine()
        assert not here.reason
    else:
        assert here.reason
        assert "install" in here.hint


def test_asking_loads_no_engine(case: Case) -> None:
    """The daemon asks all this, and must neither crash with an engine nor weigh as much."""
    code = (
        "import sys; from qwharf import platforms\n"
        f"p = platforms.get({case.platform.name!r})\n"
        "p.availability(); p.engine(); p.formats()\n"
        f"print({case.package!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


# --------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("fields", "error", "found"),
    [
        ({"format": Format("gguf", "q9_x")}, FormatUnavailable, "gguf:q9_x"),
        ({"context_tokens": 0}, UsageError, "0"),
        ({"context_tokens": -5}, UsageError, "-5"),
        ({"context_tokens": 2**40}, UsageError, "511,627,776|1099511627776"),
        ({"context_tokens": 8193}, UsageError, "8,192"),
        ({"parallel": 0}, UsageError, "0"),
        ({"parallel": 100_000}, UsageError, "100000"),
        ({"threads": 0}, UsageError, "0"),
        ({"threads": 10**6}, UsageError, "1000000"),
        ({"gpu_layers": -1}, UsageError, "-1"),
        ({"cpu_moe_layers": -1}, UsageError, "-1"),
        ({"kv_cache_type": "q9"}, UsageError, "q9"),
        ({"artifact_path": Path("/nonexistent/model.gguf")}, QwharfError, "/nonexistent"),
        ({"architecture": replace(TINY, num_hidden_layers=4)}, InvalidFile, "num_hidden_layers"),
        ({"architecture": replace(TINY, head_dim=128)}, InvalidFile, "head_dim"),
    ],
)
def test_nonsense_is_refused(
    fields: dict[str, Any], error: type[QwharfError], found: str, here: Case
) -> None:
    with pytest.raises(error) as e:
        here.platform.check(replace(here.spec, **fields))
    told = f"{e.value.subject} {e.value.found} {e.value.expected}"
    assert any(text in told for text in found.split("|"))
    assert e.value.found
    assert e.value.hint


def test_sense_is_not_refused(here: Case) -> None:
    for fields in (
        {},
        {"context_tokens": 1},
        {"context_tokens": 8192, "parallel": 3},
        {"threads": None},
    ):
        here.platform.check(replace(here.spec, **fields))


# ---------------------------------------------------------------------------------- serving


@pytest.mark.engines
def test_it_answers(engine: Engine, here: Case) -> None:
    wishes: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True, "model": here.spec.name}
    answer = engine.chat("the", **wishes)
    assert 1 <= answer["usage"]["completion_tokens"] <= 5  # mlx-lm knows no ignore_eos
    assert answer["model"] == here.spec.name
    events = list(engine.stream("the", stream_options={"include_usage": True}, **wishes))
    assert len(events) > 2
    assert 1 <= events[-1]["usage"]["completion_tokens"] <= 5


@pytest.mark.engines
def test_it_tells_what_it_applied(engine: Engine, here: Case) -> None:
    applied = here.platform.applied(engine.log())
    assert applied.context_tokens is not None
    assert here.spec.context_tokens <= applied.context_tokens < here.spec.context_tokens + 256
    if applied.weights_bytes is not None:
        assert applied.weights_bytes <= sum(applied.lines.values())
    phases = [p for p in map(here.platform.phase, engine.log()) if p is not None]
    assert phases[0] == "starting the engine"
    assert "loading weights" in phases
    assert phases[-1] == "ready"
    assert here.platform.applied([]).total_bytes is None


@pytest.mark.engines
def test_what_does_not_fit_the_context_is_refused(engine: Engine, here: Case) -> None:
    body = {
        "model": here.spec.name,
        "messages": [{"role": "user", "content": "x" * 1200}],
        "max_tokens": 1,
    }
    refused = engine.post("/v1/chat/completions", body)
    assert refused.status_code == 400
    assert "context" in refused.text


@pytest.mark.engines
def test_it_serves_nothing_to_browsers(engine: Engine, here: Case) -> None:
    if here.platform.name == "sglang":
        pytest.skip("SGLang allows every page, and cannot be told otherwise")
    assert engine.get("/").status_code == 404
    answer = engine.get("/v1/models", Origin="http://evil.example")
    allowed = answer.headers.get("access-control-allow-origin", "")
    assert allowed not in ("*", "null", "http://evil.example")


@pytest.mark.engines
def test_it_stays_alive_when_asked_nonsense(engine: Engine, here: Case) -> None:
    for body in (
        {"messages": "x"},
        {"messages": [{"role": "user", "content": "x"}], "grammar": "root ::= ("},
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": -7, "temperature": -1},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        [],
    ):
        engine.post("/v1/chat/completions", body)
    assert engine.chat("the", model=here.spec.name)["choices"]


# ----------------------------------------------------------------------------------- ending


@pytest.mark.engines
@pytest.mark.restarts
def test_it_stops_when_told(here: Case, tmp_path: Path) -> None:
    """In the middle of a stream, too."""
    with started(here.platform, here.spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        events = engine.stream("the", max_tokens=600, ignore_eos=True, model=here.spec.name)
        next(events)
        engine.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(Exception):  # the stream may end in any way
            list(events)
        code = engine.await_end()
        assert code in here.stop_codes
        assert "told to" in here.platform.explain(engine.log(), code)


@pytest.mark.engines
@pytest.mark.restarts
def test_a_killed_engine_is_explained(here: Case, tmp_path: Path) -> None:
    with started(here.platform, here.spec, tmp_path / "log") as engine:
        assert engine.await_ready(), engine.log()
        os.kill(engine.process.pid, signal.SIGKILL)
        why = here.platform.explain(engine.log(), engine.await_end())
    assert "SIGKILL" in why
    assert "memory" in why


@pytest.mark.engines
@pytest.mark.restarts
def test_a_taken_port_is_explained(here: Case, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine = Engine(here.platform.launch(here.spec, port), tmp_path / "log")
        code = engine.await_end()
        engine.end()
    assert code > 0
    assert "in use" in here.platform.explain(engine.log(), code)
