"""How long the command line and the daemon take to start, as a multiple of ``python -c pass``."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import header, measure, table

ROUNDS = 15
LIMIT_HELP_RATIO = 8.0
LIMIT_DAEMON_RSS_BYTES = 80 * 2**20


def median_wall(argvs: dict[str, list[str]]) -> dict[str, float]:
    """Median wall seconds of each, the rounds interleaved so that noise hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in argvs}
    for n in range(ROUNDS + 1):
        for name, argv in argvs.items():
            run = measure(argv)
            if n:  # the first round fills caches
                times[name].append(run.wall_seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def daemon() -> tuple[float, int]:
    """Seconds until the daemon answers, and its memory when idle."""
    import psutil

    from qwharf import settings
    from qwharf.daemon.client import DaemonClient

    with tempfile.TemporaryDirectory() as home:
        os.environ["QWHARF_HOME"] = home
        os.environ["QWHARF_PORT"] = "18399"
        client = DaemonClient(settings.load())
        start = time.perf_counter()
        client.ensure_running()
        seconds = time.perf_counter() - start
        try:
            time.sleep(2)
            process = psutil.Process(int(client.status()["pid"]))
            return seconds, process.memory_info().rss
        finally:
            client.shutdown()


def main() -> int:
    header("Start-up")
    qwharf = str(Path(sys.executable).parent / "qwharf")
    walls = median_wall(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "qwharf --help": [qwharf, "--help"],
            "qwharf ps": [qwharf, "ps"],
            "qwharf models": [qwharf, "models"],
            "qwharf fit": [qwharf, "fit"],
        }
    )
    floor = walls["python -c pass"]
    rows = [[n, f"{w * 1e3:.0f} ms", f"{w / floor:.1f}"] for n, w in walls.items()]
    seconds, rss = daemon()
    rows.append(["daemon answers", f"{seconds * 1e3:.0f} ms", f"{seconds / floor:.1f}"])
    table(["", "median wall", "times `python -c pass`"], rows)
    print(f"\nidle daemon: {rss / 2**20:.0f} MiB resident (limit 80)")
    return (
        0
        if walls["qwharf --help"] / floor <= LIMIT_HELP_RATIO and (rss <= LIMIT_DAEMON_RSS_BYTES)
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
