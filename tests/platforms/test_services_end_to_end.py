"""By the command line alone: the pocket model on each service, proven through the gateway.

The services are doubles, with a real llama.cpp in them; everything else is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lm_studio_double import LmStudioDouble
from services import Home, installed, tree

from qwharf.daemon.starting import free_port
from qwharf.formats.gguf import read_gguf
from qwharf.testing import write_parts

BEYOND_POCKET = {"tool-nested-json"}
"""What the pocket model cannot do without a grammar, which Qwen3 can."""
pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]


@dataclass
class Terminal:
    """A shell in somebody's home."""

    home: Home

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "qwharf", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            env=os.environ,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def ok(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def terminal(home: Home) -> Iterator[Terminal]:
    home.patch.setenv("QWHARF_PORT", str(free_port()))
    home.patch.setenv("OLLAMA_MODELS", str(home.path / "ollama"))
    made = Terminal(home)
    yield made
    made.run("down", "--daemon")


@pytest.mark.parametrize("platform", ["ollama", "lmstudio"])
def test_the_whole_way(platform: str, terminal: Terminal) -> None:
    home = terminal.home
    with ExitStack() as stack:
        if platform == "ollama":  # installed, not running: it is started
            models = home.path / "ollama"
            folder = home.path / "bin"
            installed(folder)
            home.patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
            home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
            home.patch.setenv("OLLAMA_DOUBLE_ENGINES", "1")
        else:
            models = home.path / ".lmstudio"
            server = stack.enter_context(LmStudioDouble(models, engines=True))
            home.patch.setenv("LMSTUDIO_URL", server.url)
        proven = terminal.run("up", "pocket", "--platform", platform, "--json")
        done = json.loads(proven.stdout)
        checks = (done if proven.returncode == 0 else done["error"]["facts"])["report"]["checks"]
        failed = {c["id"] for c in checks if c["status"] == "fail"}
        assert failed <= BEYOND_POCKET, proven.stdout
        (shown,) = terminal.ok("ps")
        assert shown["spec"]["platform"] == platform
        assert (shown["state"], shown["verified"]) == ("ready", "fail" if failed else "pass")

        (artifact,) = [a for a in terminal.ok("store", "ls") if a["uses"]]
        (use,) = artifact["uses"]
        assert (use["platform"], use["shared"], use["deployment"]) == (platform, True, "pocket")
        assert Path(use["path"]).samefile(artifact["path"]), "one copy on the disk"
        refused = terminal.run("store", "rm", artifact["id"])
        assert refused.returncode == 13
        assert "pocket" in refused.stderr

        answer = terminal.ok("chat", "pocket", "What is 2+2?", "--no-thinking")
        assert answer["content"].strip()
        terminal.ok("down", "pocket")
        assert tree(models) == {}
        assert terminal.ok("ps") == []


def test_weights_in_parts_are_put_together_for_ollama(
    terminal: Terminal, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = terminal.home
    installed(home.path / "bin")
    home.patch.setenv("PATH", f"{home.path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    home.patch.setenv("OLLAMA_DOUBLE_ENGINES", "1")
    count = len(read_gguf(tiny_gguf).tensors)
    first = write_parts(tiny_gguf, tmp_path / "parts", [4, count - 4])
    words = ("up", str(first), "--platform", "ollama", "--context", "256", "--name", "tiny")
    rehearsed = terminal.run(*words, "--dry-run")
    assert "it comes in parts" in rehearsed.stdout, rehearsed.stderr
    done = terminal.run(*words)
    assert done.returncode == 10, "it talks nonsense: " + done.stderr
    (shown,) = terminal.ok("ps")
    assert Path(shown["spec"]["artifact_path"]).read_bytes() == tiny_gguf.read_bytes()
    listed = terminal.ok("store", "ls")
    assert sorted(len(a["files"]) for a in listed) == [1, 2]
    terminal.ok("down", "tiny")


def test_another_file_system_is_asked_about(
    terminal: Terminal, tiny_gguf: Path, other_file_system: Path
) -> None:
    home = terminal.home
    installed(home.path / "bin")
    home.patch.setenv("PATH", f"{home.path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    home.patch.setenv("OLLAMA_MODELS", str(other_file_system))
    refused = terminal.run("up", str(tiny_gguf), "--platform", "ollama", "--context", "256")
    assert refused.returncode == 7, refused.stderr
    assert "--copy" in refused.stderr
    assert tree(other_file_system) == {}
