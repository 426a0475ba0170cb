"""What LM Studio may do, and what the driver refuses."""

from __future__ import annotations

import json
import platform as machine
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from lm_studio_double import LmStudioDouble
from services import Home, quiet, tree

from qwharf.artifacts import uses
from qwharf.errors import (
    Conflict,
    CopyNeeded,
    EngineError,
    FormatUnavailable,
)
from qwharf.platforms import lm_studio
from qwharf.platforms.lm_studio import LmStudioPlatform
from qwharf.types import DeploymentSpec, Format

PLATFORM = LmStudioPlatform()
WEIGHTS = "models/qwharf/my-tiny-gguf/my-tiny-Q4_K_M.gguf"
HUB = "hub/models/qwharf/my-tiny"


# ----------------------------------------------------------------------- what LM Studio may do


def test_without_the_description_the_weights_are_loaded(
    server: LmStudioDouble, spec: DeploymentSpec
) -> None:
    server.reads_hub = False
    told: list[str] = []
    served = PLATFORM.deploy(spec, told.append)
    assert served.model == "qwharf/my-tiny-gguf"
    assert any("thinking switch" in t for t in told)
    assert PLATFORM.status(spec) == served


def test_keys_without_publisher_are_known(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    server.reads_hub, server.bare_keys = False, True
    assert PLATFORM.deploy(spec, quiet).model == "my-tiny-gguf"


def test_a_model_that_is_not_noticed(
    server: LmStudioDouble, home: Home, studio: Path, spec: DeploymentSpec
) -> None:
    home.patch.setattr(lm_studio, "NOTICE_SECONDS", 0.0)
    server.blind = True
    before = tree(studio)
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert "qwharf/my-tiny" in e.value.found
    assert tree(studio) == before


def test_a_context_that_was_cut_is_noticed(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    server.most_context = 512
    before = tree(studio)
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert "512" in e.value.found
    assert (tree(studio), server.instances) == (before, [])


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def saying(status: int, body: Any) -> Any:
    async def fault(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return fault


@pytest.mark.parametrize(
    ("where", "fault", "words"),
    [
        ("/load", saying(500, {"error": {"message": "out of memory", "type": "x"}}), "out of mem"),
        ("/load", saying(400, {"error": "Failed to load model"}), "Failed to load"),
        ("/load", saying(200, {"error": "Unexpected endpoint"}), "Unexpected endpoint"),
        ("/load", saying(200, {"status": "loaded"}), "no instance"),
        ("/load", saying(200, {"instance_id": "nowhere"}), "nowhere"),
        ("/load", saying(200, []), "no JSON"),
        ("/load", hang_up, "no answer"),
    ],
)
def test_what_fails_leaves_clean_folders(
    where: str, fault: Any, words: str, server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    before = tree(studio)
    server.faults[f"POST /api/v1/models{where}"] = fault
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert words in e.value.found
    assert tree(studio) == before
    assert not server.instances


def test_too_old(server: LmStudioDouble, studio: Path, spec: DeploymentSpec) -> None:
    told = {"error": "Unexpected endpoint or method. (GET /api/v1/models)"}
    server.faults["GET /api/v1/models"] = saying(200, told)
    before = tree(studio)
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert "Unexpected endpoint" in e.value.found
    assert "0.4" in e.value.hint
    assert tree(studio) == before


def test_a_token(server: LmStudioDouble, home: Home, spec: DeploymentSpec) -> None:
    server.token = "sk-lm-12345678:x"
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert "token" in e.value.hint
    home.patch.setenv("LM_API_TOKEN", server.token)
    assert PLATFORM.deploy(spec, quiet)


def test_its_server_is_not_running(home: Home, studio: Path, spec: DeploymentSpec) -> None:
    """It is said how to start it; it is not started."""
    here = PLATFORM.availability()
    assert not here.installed
    assert "lmstudio.ai" in here.hint
    with pytest.raises(FormatUnavailable):
        PLATFORM.check(spec)
    trap = home.path / "LM-Studio"
    trap.write_text("#!/bin/sh\ntouch $HOME/woken\n")
    trap.chmod(0o755)
    (studio / ".internal").mkdir()
    told = {"path": str(trap), "argv": [str(trap)], "cwd": "/"}
    (studio / ".internal/app-install-location.json").write_text(json.dumps(told))
    here = PLATFORM.availability()
    assert (here.installed, here.where) == (True, str(trap))
    assert "lms server start" in here.hint
    before = tree(studio)
    for attempt in (PLATFORM.check, lambda s: PLATFORM.deploy(s, quiet)):
        with pytest.raises(EngineError) as e:
            attempt(spec)
        assert "lms server start" in e.value.hint
    assert tree(studio) == before
    assert not (home.path / "woken").exists()


# ------------------------------------------------------------------------------------- refusing


def test_names_that_become_one_are_refused(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    PLATFORM.deploy(spec, quiet)
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, name="my-tiny"), quiet)
    assert "My_Tiny" in e.value.found


def test_what_the_user_put_there_is_never_replaced(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    path = studio / HUB / "model.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("model: mine/own\n")
    before = tree(studio)
    with pytest.raises(Conflict):
        PLATFORM.deploy(spec, quiet)
    assert tree(studio) == before


def test_a_description_that_the_user_changed_stays(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    path = studio / HUB / "model.yaml"
    path.write_text(path.read_text().replace("0.6", "0.9"))
    PLATFORM.release(spec)
    assert "0.9" in path.read_text()
    assert not (studio / WEIGHTS).exists()


@pytest.mark.skipif(
    sys.platform == "darwin" and machine.machine() == "arm64", reason="MLX runs here"
)
def test_mlx_is_for_apple_silicon(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(replace(spec, format=Format("mlx", "4bit")))
    assert "Apple silicon" in e.value.expected


def test_another_machine_is_out_of_reach(home: Home, spec: DeploymentSpec) -> None:
    home.patch.setenv("LMSTUDIO_URL", "http://studio.example.org:1234")
    with pytest.raises(EngineError) as e:
        PLATFORM.deploy(spec, quiet)
    assert "qwharf add" in e.value.hint


def test_across_file_systems_it_asks(
    server: LmStudioDouble, home: Home, studio: Path, spec: DeploymentSpec, other_file_system: Path
) -> None:
    (studio / "settings.json").write_text(json.dumps({"downloadsFolder": str(other_file_system)}))
    assert PLATFORM.steps(spec)[0].what == "copy"
    with pytest.raises(CopyNeeded) as e:
        PLATFORM.deploy(spec, quiet)
    assert e.value.facts["copy_bytes"] == spec.artifact_path.stat().st_size
    assert tree(other_file_system) == {}
    PLATFORM.deploy(replace(spec, may_copy=True), quiet)
    assert len(tree(other_file_system)) == 1
    (use,) = uses.find(home.store)[spec.artifact_id]
    assert (use.platform, use.shared, use.deployment) == ("lmstudio", False, "My_Tiny")
    PLATFORM.release(spec)
    assert tree(other_file_system) == {}
