"""Run what a platform says how to launch, as the daemon would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from qwharf.daemon.starting import free_port
from qwharf.platforms import Platform
from qwharf.testing import TINY
from qwharf.types import DeploymentSpec, Format, Launch

PATIENCE_SECONDS = 240.0
"""For a start; on an idle machine llama.cpp takes half a second, vLLM half a minute."""


def spec_of(path: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {
        "name": "tiny",
        "platform": "llama.cpp",
        "model": "tiny",
        "thinking": "hybrid",
        "format": Format("gguf", "q4_k_m"),
        "artifact_id": "0" * 64,
        "artifact_path": path,
        "architecture": TINY,
        "context_tokens": 700,
        "threads": 1,
    }
    return DeploymentSpec(**wishes | fields)


class Engine:
    """A started engine, its log in a file."""

    def __init__(self, launch: Launch, log: Path) -> None:
        self.url = launch.base_url
        self.log_path = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                launch.argv,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **launch.env},
                start_new_session=True,
            )

    def log(self) -> list[str]:
        return self.log_path.read_text("utf-8", "replace").splitlines()

    def await_ready(self, path: str = "/health") -> bool:
        """Whether it came to serve; ``False``: it ended."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx2.get(self.url + path, timeout=PATIENCE_SECONDS).status_code == 200:
                    return True
            except httpx2.HTTPError:
                pass
            if self.process.poll() is not None:
                return False
            time.sleep(0.05)
        raise AssertionError("neither ready nor dead:\n" + "\n".join(self.log()[-20:]))

    def await_end(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=PATIENCE_SECONDS, headers=headers)

    def post(self, path: str, body: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, json=body, timeout=PATIENCE_SECONDS)

    def chat(self, text: str, **fields: Any) -> dict[str, Any]:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}
        answer = self.post("/v1/chat/completions", body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def stream(self, text: str, **fields: Any) -> Iterator[dict[str, Any]]:
        body = {"messages": [{"role": "user", "content": text}], "stream": True, **fields}
        with httpx2.stream(
            "POST", self.url + "/v1/chat/completions", json=body, timeout=PATIENCE_SECONDS
        ) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    yield json.loads(line.removeprefix("data: "))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if sys.platform != "win32":  # members of its family that outlived it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def started(platform: Platform, spec: DeploymentSpec, log: Path) -> Iterator[Engine]:
    """An engine, ended at the end; not necessarily ready."""
    engine = Engine(platform.launch(spec, free_port()), log)
    try:
        yield engine
    finally:
        engine.end()
