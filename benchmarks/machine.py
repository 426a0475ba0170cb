"""What every benchmark prints first: machine, versions, command; and how it measures a process."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def header(title: str) -> None:
    """Print the title, the machine, the versions and the command that repeats the run."""
    import psutil

    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _read("/proc/cpuinfo").splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    memory = psutil.virtual_memory().total / 2**30
    print(f"\n## {title}\n")
    print(f"machine   {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}")
    print(f"load      {os.getloadavg()[0]:.2f} before the run")
    print(
        "versions  Python "
        + platform.python_version()
        + "".join(f", {name} {found}" for name in ("qwharf", "xllamacpp") if (found := of(name)))
    )
    module = Path(sys.argv[0])
    words = [
        "python",
        "-m",
        f"benchmarks.{module.stem}" if module.stem != "__main__" else "benchmarks",
    ]
    print(f"command   {shlex.join([*words, *sys.argv[1:]])}\n")


def of(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process cost."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    returncode: int
    output: str


def measure(
    argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Run:
    """Run ``argv`` to its end; wall, CPU (children included) and peak memory of the process.

    The system counts what this process has ever held as the child's, who shares its memory until
    it runs a program of its own: large things are to be done in children, too.

    Raises:
        RuntimeError: it failed; carries the end of its output.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        list(argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        text=True,
    ) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode != 0:
        raise RuntimeError(f"{shlex.join(argv)} ended with {child.returncode}:\n{output[-2000:]}")
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return Run(
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * scale,
        returncode=child.returncode,
        output=output,
    )


def own_peak_bytes() -> int:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table, ready for the README."""
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    lines(rows)


def lines(rows: Sequence[Sequence[object]]) -> None:
    """Print more lines of a table."""
    for row in rows:
        print("| " + " | ".join(str(c) for c in row) + " |")
    sys.stdout.flush()
