"""What vLLM's log says: how far it is, what it allocated, why it gave up.

Sources: logs of vLLM 0.32.0 on a processor; for GPUs the texts in ``v1/worker/gpu_model_runner.py``
and ``v1/core/kv_cache_utils.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qwharf.platforms import python_log
from qwharf.platforms.base import Applied
from qwharf.platforms.phases import begun

_PHASES = (
    ("Application startup complete", "ready"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    ("Warming up model for the compilation", "compiling"),
    ("Dynamo bytecode transform time", "compiling"),
    ("KV cache size:", "allocating the KV cache"),
    ("Starting to load model", "loading weights"),
    ("non-default args:", "starting the engine"),
)


def phase(log_line: str) -> str | None:
    """What begins with this line, in a few words; ``None`` for nearly all lines."""
    return begun(_PHASES, log_line)


_WEIGHTS = re.compile(r"Model loading took ([\d.]+) GiB memory")
_KV = re.compile(r"Available KV cache memory: ([\d.]+) GiB|Explicitly set \(([\d.]+)/")
_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_CONTEXT = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request")
_START = "non-default args:"


def applied(log: Iterable[str]) -> Applied:
    """What the latest start took, of all processes together.

    On a processor vLLM says nothing of the weights, and of the cache what it was told.
    """
    weights = kv = 0.0
    context: int | None = None
    for line in log:
        if _START in line:
            weights, kv, context = 0.0, 0.0, None
        if found := _WEIGHTS.search(line):
            weights += float(found[1])  # each card's process says it
        if found := _KV.search(line):
            kv += float(found[1] or found[2])
        if found := _CONTEXT.search(line):
            context = int(found[1].replace(",", ""))
    return Applied.of_gib(weights, kv, context)


_KNOWN: python_log.Known = (
    (
        re.compile(
            r"max seq len \((?P<asked>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is"
            r" larger than the available KV cache memory \((?P<has>[\d.]+) GiB\)"
        ),
        "the KV cache of {asked} tokens takes {needed} GiB, and {has} GiB are left for it:"
        " choose a smaller --context",
    ),
    (
        re.compile(r"No available memory for the cache blocks"),
        "no memory is left for the KV cache beside the weights",
    ),
    (
        re.compile(
            r"Free memory on device \S+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is"
            r" less than desired GPU memory utilization"
        ),
        "only {free} of {total} GiB are free on the GPU: something else uses it",
    ),
    (
        re.compile(r"(?P<what>CUDA out of memory\. Tried to allocate [\d.]+ \w+)"),
        "not enough memory: {what}",
    ),
    (
        re.compile(
            r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived"
            r" max_model_len \([^)]*?(?P<most>\d+)"
        ),
        "a context of {asked} tokens was asked for, the weights hold {most}",
    ),
)


def explain(log: Sequence[str], exit_code: int | None) -> str:
    """Why the latest start in ``log`` failed, or the engine died, in one sentence."""
    return python_log.explain(log, exit_code, phase=phase, known=_KNOWN)
