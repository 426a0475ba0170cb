"""What llama.cpp's log says: how far it is, what it allocated, why it gave up."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence

from qwharf.platforms.base import Applied

MIB = 2**20
START = "qwharf-engine: starting"
"""The child's first line; a log may hold several starts."""

_PHASES = (
    ("qwharf-engine: ready", "ready"),
    ("warming up the model", "warming up"),
    ("llama_context: constructing", "allocating the KV cache"),
    ("load_tensors: loading model tensors", "loading weights"),
    ("load_model: loading model", "reading the file's header"),
    (START, "starting the engine"),
)


def phase(log_line: str) -> str | None:
    """What begins with this line, in a few words; ``None`` for nearly all lines."""
    return next((name for mark, name in _PHASES if mark in log_line), None)


# ------------------------------------------------------------------------------------- applied

_BUFFER = re.compile(
    r":\s+(?P<where>\S+)\s+(?P<kind>model|KV|compute|output) buffer size\s+=\s+(?P<mib>[0-9.]+) MiB"
)
_SLOTS = re.compile(r"n_slots = \d+, n_ctx_slot = (?P<tokens>\d+)")


def applied(log: Iterable[str]) -> Applied:
    """The buffers of the latest start in ``log``; sizes are known to 0.01 MiB."""
    lines: dict[str, int] = {}
    sums: dict[str, int] = {}
    context: int | None = None
    for line in log:
        if START in line:
            lines, sums, context = {}, {}, None
        found = _BUFFER.search(line)
        if found is not None:
            size = round(float(found["mib"]) * MIB)
            label = f"{found['where']} {found['kind']}"
            lines[label] = lines.get(label, 0) + size
            sums[found["kind"]] = sums.get(found["kind"], 0) + size
        slots = _SLOTS.search(line)
        if slots is not None:
            context = int(slots["tokens"])
    return Applied(
        weights_bytes=sums.get("model"),
        kv_bytes=sums.get("KV"),
        compute_bytes=sums.get("compute"),
        output_bytes=sums.get("output"),
        context_tokens=context,
        lines=lines,
    )


# ------------------------------------------------------------------------------------- explain

_PREFIX = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z] ?")


def explain(log: Sequence[str], exit_code: int | None) -> str:
    """Why the latest start in ``log`` failed, or the engine died, in one sentence."""
    return _ended(exit_code)


def _ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "the engine did not say why"
    if exit_code >= 0:
        return f"the engine ended with code {exit_code} and did not say why"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"the engine was ended by {name}"
