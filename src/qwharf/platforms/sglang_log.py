"""What SGLang's log says: how far it is, what it allocated, why it gave up.

Sources: logs of SGLang 0.5.23 on a processor (with a stand-in for its kernels); the texts in
``srt/model_executor/model_runner.py``, ``srt/mem_cache/memory_pool.py``, ``srt/managers``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qwharf.platforms import python_log
from qwharf.platforms.base import Applied
from qwharf.platforms.phases import begun

_PHASES = (
    ("The server is fired up and ready to roll", "ready"),
    ("Application startup complete", "warming up"),
    ("Capture cuda graph begin", "capturing CUDA graphs"),
    ("KV Cache is allocated", "allocating the KV cache"),
    ("Load weight begin", "loading weights"),
    ("server_args=", "starting the engine"),
)


def phase(log_line: str) -> str | None:
    """What begins with this line, in a few words; ``None`` for nearly all lines."""
    return begun(_PHASES, log_line)


_START = "server_args="
_WEIGHTS = re.compile(r"Load weight end\..* mem usage=([\d.]+) GB")
_CACHE = re.compile(
    r"KV Cache is allocated\..*(?:K size: ([\d.]+) GB, V size: ([\d.]+) GB|KV size: ([\d.]+) GB)"
)
_CONTEXT = re.compile(r"max_total_num_tokens=(\d+),.* context_len=(\d+)")


def applied(log: Iterable[str]) -> Applied:
    """What the latest start took, of all processes together.

    SGLang writes GB and means GiB (``mem_cache/memory_pool.py``).
    """
    weights = kv = 0.0
    context: int | None = None
    for line in log:
        if _START in line:
            weights, kv, context = 0.0, 0.0, None
        if found := _WEIGHTS.search(line):
            weights += float(found[1])  # each card's process says it
        if found := _CACHE.search(line):
            kv += sum(float(size) for size in found.groups() if size is not None)
        if found := _CONTEXT.search(line):
            # No request can have more than the whole cache.
            context = min(int(found[1]), int(found[2]))
    return Applied.of_gib(weights, kv, context)


_KNOWN: python_log.Known = (
    (
        re.compile(r"(?P<what>CUDA out of memory\. Tried to allocate [\d.]+ \w+)"),
        "not enough memory: {what}",
    ),
    (
        re.compile(r"Not enough memory\. Please try to increase --mem-fraction-static"),
        "no memory is left for the KV cache beside the weights",
    ),
    (
        re.compile(
            r"User-specified context_length \((?P<asked>\d+)\) is greater than the derived"
            r" context_length \((?P<most>\d+)\)"
        ),
        "a context of {asked} tokens was asked for, the weights hold {most}",
    ),
)


def explain(log: Sequence[str], exit_code: int | None) -> str:
    """Why the latest start in ``log`` failed, or the engine died, in one sentence."""
    return python_log.explain(log, exit_code, phase=phase, known=_KNOWN)
