"""Reasons found in the logs of engines written in Python.

The files in ``engine_logs`` are what vLLM 0.32.0 wrote on a processor, and SGLang 0.5.23 with a
stand-in for its kernels; lines about GPUs are put together from the texts in their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.platforms import python_log, sglang_log, vllm_log
from qwharf.platforms.mlx import Mlx

LOGS = Path(__file__).parent / "engine_logs"
DAEMON = "--- qwharf: starting vllm serve /models/pocket"


def log(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text("utf-8").splitlines()


RECORDED = {
    "vllm-port": "its port is in use",
    "vllm-context": "a context of 5000 tokens was asked for, the weights hold 4096",
    "vllm-option": "an option was refused: unrecognized arguments: --no-such-option 3",
    "vllm-cache": "the KV cache of 4096 tokens takes 0.01 GiB, and 0.0 GiB are left for it",
    "sglang-context": "a context of 9000 tokens was asked for, the weights hold 4096",
}
EXPLAIN = {"vllm": vllm_log.explain, "sglang": sglang_log.explain}


@pytest.mark.parametrize(("name", "why"), RECORDED.items())
def test_the_reason_is_found_in_what_was_recorded(name: str, why: str) -> None:
    explain = EXPLAIN[name.partition("-")[0]]
    told = explain([DAEMON, *log(name), "--- qwharf: engine 7 ended"], 1)
    assert why in told
    assert "\n" not in told
    assert "Traceback" not in told


def test_a_recorded_start_is_followed() -> None:
    lines = log("vllm-ready")
    phases = [name for name in map(vllm_log.phase, lines) if name is not None]
    assert phases == [
        "starting the engine",
        "loading weights",
        "allocating the KV cache",
        "ready",
    ]
    applied = vllm_log.applied(lines)
    assert applied.context_tokens == 4096
    assert applied.kv_bytes == pytest.approx(0.09 * 2**30, rel=0.01)  # it writes two digits
    # Once it serves, what stands above is not why it ended.
    assert "told to stop" in vllm_log.explain(lines, -15)
    assert "SIGKILL" in vllm_log.explain(lines, -9)
    assert vllm_log.explain(lines, None) == "the engine does not answer"


def test_a_recorded_start_of_sglang_is_followed() -> None:
    """With the traceback of a try that it makes too early, and goes on after."""
    lines = log("sglang-ready")
    phases = [name for name in map(sglang_log.phase, lines) if name is not None]
    assert phases == [
        "starting the engine",
        "loading weights",
        "allocating the KV cache",
        "warming up",
        "ready",
    ]
    applied = sglang_log.applied(lines)
    assert applied.context_tokens == 4096
    assert applied.kv_bytes == pytest.approx(0.02 * 2**30, rel=0.01)  # it writes two digits
    assert "SIGKILL" in sglang_log.explain(lines, -9)
    assert "Connection" not in sglang_log.explain(lines, -9)


TWO_PROCESSES = [
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] EngineCore failed to start.",
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] Traceback (most recent call last):",
    '(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1]   File "/env/x.py", line 1, in f',
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] KeyError: 'layers.0.weird'",
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] ",
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] The above exception was the direct cause"
    " of the following exception:",
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] Traceback (most recent call last):",
    "(EngineCore pid=2) ERROR 11-25 08:00:00 [core.py:1] ValueError: no such layer",
    "(APIServer pid=1) Traceback (most recent call last):",
    '(APIServer pid=1)   File "/env/y.py", line 1, in g',
    "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
]


def test_the_first_process_that_failed_counts_and_the_end_of_its_chain() -> None:
    assert vllm_log.explain(TWO_PROCESSES, 1) == "no such layer"


@pytest.mark.parametrize(
    ("explain", "line", "why"),
    [
        (
            vllm_log.explain,
            "ValueError: To serve at least one request with the model's max seq len (40960), (5.62"
            " GiB KV cache is needed, which is larger than the available KV cache memory (3.10"
            " GiB). Based on the available memory, the estimated maximum model length is 22576.",
            "the KV cache of 40960 tokens takes 5.62 GiB, and 3.10 GiB are left",
        ),
        (
            vllm_log.explain,
            "ValueError: Free memory on device cuda:0 (10.25/79.19 GiB) on startup is less than"
            " desired GPU memory utilization (0.92, 72.85 GiB).",
            "only 10.25 of 79.19 GiB are free",
        ),
        (
            vllm_log.explain,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a",
            "not enough memory: CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        (
            sglang_log.explain,
            "ValueError: User-specified context_length (131072) is greater than the derived"
            " context_length (40960). This may lead to incorrect model outputs or CUDA errors.",
            "a context of 131072 tokens was asked for, the weights hold 40960",
        ),
        (
            sglang_log.explain,
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
            "no memory is left for the KV cache",
        ),
        (
            Mlx().explain,
            "ValueError: Received 3 parameters not in model: a, b, c.",
            "Received 3 parameters not in model",
        ),
        (
            Mlx().explain,
            "ModuleNotFoundError: No module named 'mlx'",
            "No module named 'mlx'",
        ),
        (vllm_log.explain, "MemoryError", "not enough memory"),
    ],
)
def test_known_reasons(explain: Callable[[list[str], int], str], line: str, why: str) -> None:
    told = explain(["Traceback (most recent call last):", '  File "/x", line 1', line], 1)
    assert why in told


def test_refused_options_are_told() -> None:
    lines = ["usage: vllm serve [model_tag] [options]", "vllm: error: unrecognized arguments: --x"]
    assert vllm_log.explain(lines, 2) == "an option was refused: unrecognized arguments: --x"


def test_silence_is_told_with_what_was_being_done() -> None:
    assert vllm_log.explain([], None) == "the engine said nothing"
    assert vllm_log.explain([], 3) == "the engine ended with code 3"
    started = ["INFO 11-25 08:00:00 [x.py:1] Starting to load model /models/pocket..."]
    assert vllm_log.explain(started, None) == "the engine did not finish loading weights"
    assert vllm_log.explain(started, 3).endswith("while loading weights")
    assert "SIGKILL" in vllm_log.explain(started, -9)


@given(st.lists(st.text(max_size=80), max_size=30), st.none() | st.integers(-80, 255))
def test_any_log_has_one_sentence(lines: list[str], code: int | None) -> None:
    told = python_log.explain(lines, code, phase=vllm_log.phase)
    assert told


SGLANG = [
    "[2026-11-25 08:00:00] server_args=ServerArgs(model_path='/models/pocket')",
    "[2026-11-25 08:00:00 TP0] Load weight begin. avail mem=78.00 GB",
    "[2026-11-25 08:00:01 TP0] Load weight end. elapsed=1.00 s, type=Qwen3ForCausalLM, avail"
    " mem=70.00 GB, mem usage=7.65 GB.",
    "[2026-11-25 08:00:01 TP1] Load weight end. elapsed=1.00 s, type=Qwen3ForCausalLM, avail"
    " mem=70.00 GB, mem usage=7.65 GB.",
    "[2026-11-25 08:00:02 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 400000, K"
    " size: 13.73 GB, V size: 13.73 GB",
    "[2026-11-25 08:00:03 TP0] max_total_num_tokens=400000, chunked_prefill_size=8192,"
    " max_prefill_tokens=16384, max_running_requests=8, context_len=32768, available_gpu_mem=9 GB",
    "[2026-11-25 08:00:04] INFO:     Application startup complete.",
    "[2026-11-25 08:00:05] The server is fired up and ready to roll!",
]


def test_what_sglang_allocated_is_read_of_every_card() -> None:
    applied = sglang_log.applied(SGLANG)
    assert applied.weights_bytes == pytest.approx(15.3 * 2**30, rel=0.001)
    assert applied.kv_bytes == pytest.approx(27.46 * 2**30, rel=0.001)
    assert applied.context_tokens == 32_768
    phases = [name for name in map(sglang_log.phase, SGLANG) if name is not None]
    assert phases[0] == "starting the engine"
    assert phases[-1] == "ready"
    again = sglang_log.applied([*SGLANG, *SGLANG[:3]])  # a second start, not yet through
    assert again.kv_bytes is None


def test_what_vllm_allocated_is_read_of_every_card() -> None:
    lines = [
        "(Worker_TP0 pid=1) INFO 11-25 08:00:00 [x.py:1] Model loading took 7.65 GiB memory and 2",
        "(Worker_TP1 pid=1) INFO 11-25 08:00:00 [x.py:1] Model loading took 7.65 GiB memory and 2",
        "(Worker_TP0 pid=1) INFO 11-25 08:00:00 [x.py:1] Available KV cache memory: 60.00 GiB",
        "(Worker_TP1 pid=1) INFO 11-25 08:00:00 [x.py:1] Available KV cache memory: 60.00 GiB",
        "INFO [x.py:1] GPU KV cache size: 436,896 tokens, Maximum concurrency for 32,768 tokens"
        " per request: 13.33x",
    ]
    applied = vllm_log.applied(lines)
    assert applied.weights_bytes == pytest.approx(15.3 * 2**30, rel=0.001)
    assert applied.kv_bytes == 120 * 2**30
    assert applied.context_tokens == 32_768
