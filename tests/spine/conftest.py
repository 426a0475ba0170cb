"""A home of its own and the command line as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qwharf.daemon.starting import free_port


@dataclass
class Home:
    """One user's machine: folders, a port, and the commands typed on it."""

    folder: Path
    port: int

    @property
    def env(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("QWHARF_")}
        return {**kept, "QWHARF_HOME": str(self.folder), "QWHARF_PORT": str(self.port)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "qwharf", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def run(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as child:
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def ok(self, *words: str, timeout: float = 240) -> Any:
        done = self.run(*words, "--json", timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        self.run("down", "--daemon", timeout=60)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home", free_port())
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("shared") / "home", free_port())
    yield made
    made.close()
