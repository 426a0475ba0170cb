"""Running other programs: their words line by line, and no child left when we are interrupted."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from qwharf.engines.installed import Installed
from qwharf.errors import EngineError

KEPT_LINES = 400
WAIT_SECONDS = 0.5
PIPE_SECONDS = 5.0
"""For the last words of a dead child, should somebody else hold its pipe open."""
UNWANTED = (
    # what would make another Python look for its modules elsewhere
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
    # what would make pip or uv install elsewhere
    *("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_VIRTUALENV"),
    *("PIP_REPORT", "PIP_DRY_RUN", "PIP_LOG", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON"),
    # what is no business of theirs
    *("QWHARF_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended."""

    code: int
    """As :attr:`subprocess.Popen.returncode`; negative for a signal."""
    lines: tuple[str, ...]
    """The last of what it wrote, to stdout and stderr alike."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what would lead another Python astray, and without secrets."""
    kept = {k: v for k, v in os.environ.items() if k not in UNWANTED}
    return {
        **kept,
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        **(extra or {}),
    }


def run(
    argv: Sequence[str],
    *,
    extra: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: TextIO | None = None,
    on_line: Callable[[str], None] | None = None,
    on_wait: Callable[[], None] | None = None,
    timeout_seconds: float | None = None,
) -> Finished:
    """Run ``argv`` to its end.

    Args:
        argv: the program and its arguments.
        extra: added to :func:`environment`.
        cwd: where it runs.
        log: takes all it writes.
        on_line: is told every line.
        on_wait: is called now and then while it says nothing.
        timeout_seconds: after which it is killed.

    Raises:
        EngineError: it cannot be started, or was killed for taking too long.
    """
    if log is not None:
        log.write(f"$ {' '.join(argv)}\n")
    if shutil.which(argv[0]) is None:
        raise EngineError(argv[0], found="it is not there", expected="a program that can be run")
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(extra),
            close_fds=False,  # the lock goes with it; all other files are closed by themselves
            start_new_session=True,  # Ctrl-C is for us; what the child started ends with it
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as e:
        raise EngineError(
            argv[0], found=e.strerror or str(e), expected="a program that can be run"
        ) from e
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    words: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child.stdout, words), daemon=True)
    reader.start()
    ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    try:
        while True:
            if ends is not None and time.monotonic() > ends:
                raise EngineError(argv[0], found=f"no end after {timeout_seconds:.0f} seconds")
            try:
                line = words.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                if on_wait is not None:
                    on_wait()
                continue
            if line is None:
                break
            lines.append(line)
            if log is not None:
                log.write(line + "\n")
            if on_line is not None:
                on_line(line)
        return Finished(child.wait(), tuple(lines))
    finally:
        _end(child)
        reader.join(PIPE_SECONDS)
        if child.stdout is not None and not reader.is_alive():
            child.stdout.close()


def _read(stream: TextIO | None, words: queue.Queue[str | None]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream or ():
            words.put(line.rstrip())
    words.put(None)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        child.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run_python(
    installed: Installed,
    module_or_script: str | Path,
    args: Sequence[str] = (),
    *,
    extra: Mapping[str, str] | None = None,
    log: TextIO | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout_seconds: float | None = None,
) -> Finished:
    """Run a module (a name) or a script (a :class:`Path`) with the engine's own Python.

    For work that needs an engine's packages, apart from serving: the caller reads what it prints
    and judges its exit code.

    Raises:
        EngineError: the engine has problems, its Python does not start, or it took too long.
    """
    if installed.problems:
        raise EngineError(
            f"{installed.engine} {installed.version}", found="; ".join(installed.problems)
        )
    what = (
        [str(module_or_script)] if isinstance(module_or_script, Path) else ["-m", module_or_script]
    )
    return run(
        [str(installed.python), *what, *args],
        extra=extra,
        log=log,
        on_line=on_line,
        timeout_seconds=timeout_seconds,
    )
