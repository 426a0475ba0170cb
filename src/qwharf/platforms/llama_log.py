"""What llama.cpp's log says: how far it is, what it allocated, why it gave up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qwharf.platforms.base import Applied
from qwharf.platforms.exits import ended
from qwharf.platforms.phases import begun

MIB = 2**20
START = re.compile(r"qwharf-engine: starting|llama_server: initializing")
"""The first line, of the child or of llama.cpp's own server; a log may hold several starts."""
READY = re.compile(r"qwharf-engine: ready|llama_server: listening on")

_PHASES = (
    ("warming up the model", "warming up"),
    ("llama_context: constructing", "allocating the KV cache"),
    ("load_tensors: loading model tensors", "loading weights"),
    ("load_model: loading model", "reading the file's header"),
)


def phase(log_line: str) -> str | None:
    """What begins with this line, in a few words; ``None`` for nearly all lines."""
    if READY.search(log_line):
        return "ready"
    if START.search(log_line):
        return "starting the engine"
    return begun(_PHASES, log_line)


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
        if START.search(line):
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

_DAEMON = "--- qwharf:"
"""What the daemon writes between the engine's lines."""
_ERROR = re.compile(r"^[\d.]*\.\d{3} E (?:\w{3} +)?(?P<where>[\w():~]+): (?P<what>.*)")
"""A line that the engine marks as an error: time, ``E``, module, function, text."""
_ABORT = re.compile(r"(?P<file>[\w.-]+):(?P<line>\d+): (?P<what>GGML_ASSERT\(.*|.+)")
_CHILD = re.compile(r"^qwharf-engine: could not start: (?P<what>.*)")
_PORT = re.compile(
    r"couldn't bind HTTP server socket, hostname: (?P<host>\S+), port: (?P<port>\d+)"
)
_ALLOCATION = re.compile(
    r"(?:failed to allocate|unable to allocate|cannot allocate|out of memory|bad_alloc)", re.I
)
_BYTES = re.compile(r"(?:of size|allocate|buffer of) (?P<bytes>\d{4,})")
_EMPTY_WORDS = re.compile(
    r"failed to load model|please consider|for example:|failed to initialize chat template"
    r"|exiting due to|check the input params"
)
_IN_FRONT = re.compile(r"^(?:error: |error loading model: |init: |load_model: )+")
_TEMPLATE = "common_chat_templates_init"


def explain(log: Sequence[str], exit_code: int | None) -> str:
    """Why the latest start in ``log`` failed, or the engine died, in one sentence."""
    lines = _latest(log)
    running = any(READY.search(line) for line in lines)
    exited = ended(exit_code)
    aborted = _abort(lines)
    if aborted is not None:
        return f"{exited}: {aborted}" if exit_code is not None else aborted
    # Once it serves, errors in its log are about single requests.
    words = None if running else _own_words(lines)
    if words is not None:
        return words
    if exit_code is None:
        doing = [p for p in map(phase, lines) if p is not None]
        return f"the engine did not finish {doing[-1]}" if doing else "the engine said nothing"
    if exit_code > 0 and lines:
        return f"{exited}: {lines[-1].strip()}"
    return exited


def _latest(log: Sequence[str]) -> list[str]:
    lines = [line.rstrip() for line in log if line.strip() and not line.startswith(_DAEMON)]
    starts = [i for i, line in enumerate(lines) if START.search(line)]
    return lines[starts[-1] :] if starts else lines


def _abort(lines: Sequence[str]) -> str | None:
    """The words with which it ended its own process."""
    for line in reversed(lines):
        if "what():" in line:
            what = line.split("what():", 1)[1].strip()
            return _memory(line) or what
        if "GGML_ASSERT" in line or "GGML_ABORT" in line or "ggml_abort" in line:
            found = _ABORT.search(line)
            return f"{found['what']} at {found['file']}:{found['line']}" if found else line
    return None


def _own_words(lines: Sequence[str]) -> str | None:
    """The first thing that it called an error and that says more than that there was one."""
    said: list[tuple[str, str]] = []
    for line in lines:
        found = _ERROR.match(line)
        if found is not None:
            said.append((found["where"], found["what"].strip()))
    memory = next((m for _, what in said if (m := _memory(what)) is not None), None)
    if memory is not None:
        return memory
    for where, what in said:
        port = _PORT.search(what)
        if port is not None:
            return f"port {port['port']} of {port['host']} is in use"
        if where == _TEMPLATE and not _EMPTY_WORDS.search(what):
            return f"the chat template cannot be read: {_IN_FRONT.sub('', what)}"
        if not _EMPTY_WORDS.search(what):
            return _IN_FRONT.sub("", what)
    child = [found["what"] for line in lines if (found := _CHILD.match(line)) is not None]
    good = [what for what in child if not _EMPTY_WORDS.search(what)]
    if good:
        return good[-1]
    return said[0][1] if said else None


def _memory(what: str) -> str | None:
    if not _ALLOCATION.search(what):
        return None
    size = _BYTES.search(what)
    asked = f", asked for {int(size['bytes']) / 2**30:.2f} GiB at once" if size else ""
    return f"not enough memory{asked}: {what}"
