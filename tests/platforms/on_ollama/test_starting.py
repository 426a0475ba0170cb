"""An Ollama that is installed and does not run."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from own_models import own_model
from services import Home, installed, quiet, tree

from qwharf import settings
from qwharf.daemon.starting import free_port
from qwharf.errors import (
    Conflict,
    EngineError,
)
from qwharf.platforms import ollama_address, ollama_process
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.platforms.ollama_api import Ollama
from qwharf.types import DeploymentSpec

PLATFORM = OllamaPlatform()


# ------------------------------------------------------------------------------------- starting


@pytest.fixture
def program(home: Home, models: Path) -> Iterator[Path]:
    """An ``ollama`` on the PATH that is not running."""
    path = installed(home.path / "bin")
    home.patch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    yield path
    ollama_process.stop(settings.load())


def test_an_installed_ollama_is_started_and_ended(
    program: Path, models: Path, spec: DeploymentSpec
) -> None:
    here = PLATFORM.availability()
    assert (here.installed, here.version, here.where) == (True, "0.33.0", str(program))
    steps = PLATFORM.steps(spec)
    assert (steps[0].what, steps[0].where) == ("start", "ollama serve")
    told: list[str] = []
    served = PLATFORM.deploy(spec, told.append)
    assert "starting `ollama serve`" in told
    started = ollama_process.started(settings.load())
    assert started is not None
    assert served.pid == started.pid
    process = psutil.Process(started.pid)
    assert os.getsid(started.pid) != os.getsid(0), "it outlives our terminal"
    assert any("Listening" in line for line in PLATFORM.log(spec, 5))
    assert PLATFORM.steps(spec)[0].what == "link"
    PLATFORM.release(spec)
    process.wait(10)
    assert tree(models) == {}
    assert ollama_process.started(settings.load()) is None


def test_a_server_with_somebody_elses_model_is_left_running(
    program: Path, models: Path, spec: DeploymentSpec, moe_gguf: Path
) -> None:
    PLATFORM.deploy(spec, quiet)
    own_model(models, moe_gguf)
    api = Ollama(ollama_address.url())
    api.load({"model": "mine", "keep_alive": -1})
    PLATFORM.release(spec)
    assert api.version() == "0.33.0"
    assert [m["name"] for m in api.loaded()] == ["mine:latest"]


def test_a_server_for_another_kv_cache(program: Path, spec: DeploymentSpec) -> None:
    PLATFORM.deploy(replace(spec, kv_cache_type="q8_0", parallel=2), quiet)
    process = ollama_process.listener(ollama_address.url())
    told = ollama_process.environment(process)
    assert told is not None
    assert told["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert told["OLLAMA_NUM_PARALLEL"] == "2"
    with pytest.raises(Conflict):
        PLATFORM.deploy(replace(spec, name="other"), quiet)


def test_a_server_that_does_not_start_is_explained(
    program: Path, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    program.write_text("#!/bin/sh\necho 'Error: no space for a key' >&2; exit 1\n")
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert e.value.found == "Error: no space for a key"
    assert "ollama-server.log" in e.value.hint
    assert tree(models) == {}


def test_a_port_that_is_somebody_elses(
    program: Path, home: Home, models: Path, spec: DeploymentSpec
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        home.patch.setenv("OLLAMA_HOST", f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EngineError) as e:
            PLATFORM.deploy(spec, quiet)
    assert "in use" in e.value.found


def test_a_server_killed_is_started_again(program: Path, spec: DeploymentSpec) -> None:
    served = PLATFORM.deploy(spec, quiet)
    assert served.pid is not None
    process = psutil.Process(served.pid)
    os.kill(served.pid, signal.SIGKILL)
    process.wait(10)
    with pytest.raises(EngineError):
        PLATFORM.status(spec)
    again = PLATFORM.deploy(spec, quiet)
    assert again.pid != served.pid


def test_a_program_too_old(program: Path, home: Home) -> None:
    home.patch.setenv("OLLAMA_DOUBLE_VERSION", "0.12.3")
    here = PLATFORM.availability()
    assert not here.installed
    assert "0.12.3" in here.reason
