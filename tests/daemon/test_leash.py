"""An engine dies with the daemon, and takes its family along: on real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from qwharf.daemon.child import LEASH

PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

ENGINE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
DAEMON = """
import os, subprocess, sys, time
leash, code = sys.argv[1:]
argv = [sys.executable, "-I", "-S", leash, str(os.getpid()), sys.executable, "-c", code]
engine = subprocess.Popen(argv, start_new_session=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody asked after yet has, too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def group_of(pid: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == pid and not gone(process.pid):
                found.append(process.pid)
    return found


@pytest.mark.parametrize("killed", ["daemon", "engine"])
def test_the_family_of_a_killed_engine_is_ended(killed: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        out.open("wb") as stdout,
        subprocess.Popen(
            [sys.executable, "-c", DAEMON, str(LEASH), ENGINE], stdout=stdout
        ) as daemon,
    ):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not out.read_text().strip() and time.monotonic() < deadline:
            time.sleep(0.02)
        engine, member = map(int, out.read_text().split())
        assert {engine, member} < set(group_of(engine))  # and the guard
        children = psutil.Process(engine).children(recursive=True)
        assert [child.pid for child in children] == [member]
        if killed == "daemon":
            daemon.kill()
        else:
            psutil.Process(engine).kill()
        while group_of(engine) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert group_of(engine) == []
        daemon.kill()
