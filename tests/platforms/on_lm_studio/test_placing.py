"""The LM Studio driver: its folders byte by byte."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_studio_double import Instance, LmStudioDouble
from services import Home, quiet, tree

from qwharf.artifacts import lm_studio_models
from qwharf.errors import (
    UsageError,
)
from qwharf.platforms import lm_studio_api, lm_studio_home
from qwharf.platforms.lm_studio import LmStudioPlatform
from qwharf.types import DeploymentSpec, Format

PLATFORM = LmStudioPlatform()
WEIGHTS = "models/qwharf/my-tiny-gguf/my-tiny-Q4_K_M.gguf"
HUB = "hub/models/qwharf/my-tiny"

YAML = """\
model: "qwharf/my-tiny"
base:
  - key: "qwharf/my-tiny-gguf"
    sources: []
metadataOverrides:
  domain: "llm"
  architectures:
    - "qwen3"
  compatibilityTypes:
    - "gguf"
  paramsStrings:
    - "1.85M"
  contextLengths:
    - 2048
  vision: false
  reasoning: true
  trainedForToolUse: true
config:
  operation:
    fields:
      - key: "llm.prediction.temperature"
        value: 0.6
      - key: "llm.prediction.topKSampling"
        value: 20
      - key: "llm.prediction.topPSampling"
        value:
          checked: true
          value: 0.95
      - key: "llm.prediction.minPSampling"
        value:
          checked: true
          value: 0.0
      - key: "llm.prediction.repeatPenalty"
        value:
          checked: true
          value: 1.0
  load:
    fields:
      - key: "llm.load.contextLength"
        value: 700
customFields:
  - key: "enableThinking"
    displayName: "Enable Thinking"
    description: "Whether the model thinks before it answers"
    type: "boolean"
    defaultValue: true
    effects:
      - type: "setJinjaVariable"
        variable: "enable_thinking"
"""

MANIFEST = {
    "type": "model",
    "owner": "qwharf",
    "name": "my-tiny",
    "dependencies": [
        {
            "type": "model",
            "purpose": "baseModel",
            "modelKeys": ["qwharf/my-tiny-gguf"],
            "sources": [],
        }
    ],
    "revision": 1,
}


# ------------------------------------------------------------------------------ where things lie


def test_home_is_found_as_lm_studio_does(home: Home) -> None:
    user = home.path
    assert lm_studio_models.home() == user / ".lmstudio"
    (user / ".cache" / "lm-studio").mkdir(parents=True)
    assert lm_studio_models.home() == user / ".cache" / "lm-studio"
    (user / ".lmstudio-home-pointer").write_text(f"{user}/elsewhere\n")
    assert lm_studio_models.home() == user / "elsewhere"
    (user / ".lmstudio-home-pointer").write_text("")  # would mean wherever we are
    assert lm_studio_models.home() == user / ".cache" / "lm-studio"


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ('{"downloadsFolder": "/big/disk"}', True),
        ("{}", False),
        ("not json", False),
        ('{"downloadsFolder": "~/models"}', False),
        ('{"downloadsFolder": 7}', False),
        ("[]", False),
        (None, False),
    ],
)
def test_the_models_folder_is_found_as_lm_studio_does(
    text: str | None, moved: bool, studio: Path
) -> None:
    if text is not None:
        (studio / "settings.json").write_text(text)
    assert lm_studio_models.models_folder() == (Path("/big/disk") if moved else studio / "models")


def test_its_address(home: Home, studio: Path) -> None:
    home.patch.delenv("LMSTUDIO_URL")
    assert lm_studio_api.url() == "http://127.0.0.1:1234"
    (studio / ".internal").mkdir()
    (studio / ".internal/http-server-config.json").write_text('{"port": 4321}')
    assert lm_studio_api.url() == "http://127.0.0.1:4321"
    home.patch.setenv("LMSTUDIO_URL", "http://127.0.0.1:99/v1/")
    assert lm_studio_api.url() == "http://127.0.0.1:99"
    home.patch.setenv("LMSTUDIO_URL", "127.0.0.1:99")
    with pytest.raises(UsageError):
        lm_studio_api.url()


# -------------------------------------------------------------------------------------- placing


def test_the_folders_hold_exactly_what_lm_studio_wants(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    before = tree(studio)
    served = PLATFORM.deploy(spec, quiet)
    placed = set(tree(studio)) - set(before)
    assert placed == {WEIGHTS, f"{HUB}/model.yaml", f"{HUB}/manifest.json"}
    assert (studio / WEIGHTS).samefile(spec.artifact_path), "one copy on the disk"
    assert not (studio / WEIGHTS).is_symlink()
    assert (studio / HUB / "model.yaml").read_text() == YAML
    assert json.loads((studio / HUB / "manifest.json").read_text()) == MANIFEST
    assert (served.url, served.model) == (server.url, "qwharf/my-tiny")
    assert served.applied.context_tokens == 700
    load = next(body for what, body in server.asked if what.endswith("/load"))
    assert load == {
        "model": "qwharf/my-tiny",
        "context_length": 700,
        "echo_load_config": True,
    }
    (model,) = [m for m in server.all() if m.publisher == "qwharf"]
    assert model.thinks, "the switch for thinking is there"


def test_the_description_is_yaml(spec: DeploymentSpec) -> None:
    for thinking in ("hybrid", "instruct", "thinking"):
        told = lm_studio_home.description(replace(spec, thinking=thinking))
        assert yaml.safe_load(lm_studio_home.yaml(told)) == told
        assert ("customFields" in told) == (thinking == "hybrid")
        assert told["metadataOverrides"]["reasoning"] == (thinking != "instruct")
    told = lm_studio_home.description(replace(spec, thinking="instruct"))
    fields = {f["key"]: f["value"] for f in told["config"]["operation"]["fields"]}
    assert fields["llm.prediction.temperature"] == 0.7
    assert fields["llm.prediction.llama.presencePenalty"] == {"checked": True, "value": 1.5}


def test_doing_it_twice_is_doing_it_once(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    first = PLATFORM.deploy(spec, quiet)
    before = tree(studio)
    assert PLATFORM.deploy(spec, quiet) == first
    assert tree(studio) == before
    assert len(server.instances) == 1


def test_another_context_is_loaded_anew(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    PLATFORM.deploy(spec, quiet)
    served = PLATFORM.deploy(replace(spec, context_tokens=900), quiet)
    assert served.applied.context_tokens == 900
    assert [i.context for i in server.instances] == [900]


def test_release_leaves_nothing_and_the_users_all(
    server: LmStudioDouble, home: Home, studio: Path, spec: DeploymentSpec
) -> None:
    theirs = tree(studio)
    server.instances.append(Instance("their/own", "their/own", 4096))
    PLATFORM.deploy(spec, quiet)
    PLATFORM.release(spec)
    assert tree(studio) == theirs
    assert not (studio / "models" / "qwharf").exists()
    assert not (studio / "hub" / "models" / "qwharf").exists()
    assert [i.id for i in server.instances] == ["their/own"]
    PLATFORM.release(spec)
    PLATFORM.deploy(spec, quiet)
    home.patch.setenv("LMSTUDIO_URL", "http://127.0.0.1:9")
    PLATFORM.release(spec)  # nobody answers
    assert tree(studio) == theirs


def test_status_follows_the_model(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    assert PLATFORM.status(spec) is None
    served = PLATFORM.deploy(spec, quiet)
    assert PLATFORM.status(spec) == served
    server.instances[0].context = 4096  # loaded again by itself, as it likes
    assert PLATFORM.status(spec) is None
    server.instances.clear()
    assert PLATFORM.status(spec) is None
    assert PLATFORM.deploy(spec, quiet) == served


def test_mlx_folders_are_linked_whole(
    server: LmStudioDouble, home: Home, studio: Path, spec: DeploymentSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config = {"max_position_embeddings": 2048, "model_type": "qwen3"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    mlx = replace(
        spec, artifact_id="", artifact_path=folder, format=Format("mlx", "4bit"), name="m"
    )
    served = PLATFORM.deploy(mlx, quiet)
    assert served.model == "qwharf/m"
    placed = studio / "models/qwharf/m-mlx"
    assert {p.name for p in placed.iterdir()} == {"config.json", "model.safetensors"}
    assert (placed / "model.safetensors").samefile(folder / "model.safetensors")
    text = yaml.safe_load((studio / "hub/models/qwharf/m/model.yaml").read_text())
    assert text["metadataOverrides"]["compatibilityTypes"] == ["safetensors"]
    PLATFORM.release(mlx)
    assert not placed.exists()
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_parts_keep_their_numbers(spec: DeploymentSpec, studio: Path, tmp_path: Path) -> None:
    from qwharf.platforms.placement import Source

    parts = tuple(
        Source(name=f"x-{n:05d}-of-00002.gguf", path=tmp_path, sha256="0", size_bytes=1)
        for n in (1, 2)
    )
    files = lm_studio_home.layout(studio, studio / "models", spec, parts)
    assert [p.name for p in files.weights] == [
        "my-tiny-Q4_K_M-00001-of-00002.gguf",
        "my-tiny-Q4_K_M-00002-of-00002.gguf",
    ]


# ------------------------------------------------------------------------------------ beforehand


def test_what_would_be_done_is_what_is_done(
    server: LmStudioDouble, studio: Path, spec: DeploymentSpec
) -> None:
    before = tree(studio)
    steps = PLATFORM.steps(spec)
    assert tree(studio) == before
    assert [s.what for s in steps] == ["link", "write", "write", "request"]
    PLATFORM.deploy(spec, quiet)
    placed = {str(studio / name) for name in set(tree(studio)) - set(before)}
    assert {s.where for s in steps[:-1]} == placed
    for step in steps[1:3]:
        assert Path(step.where).read_text() == step.content


# ---------------------------------------------------------------------------------------- peers


def test_the_python_sdk_believes_the_double(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    """LM Studio's own client lists, loads and unloads what the driver placed."""
    sdk = pytest.importorskip("lmstudio")
    PLATFORM.deploy(spec, quiet)
    with sdk.Client(server.url.removeprefix("http://")) as client:
        (found,) = [m for m in client.system.list_downloaded_models() if "qwharf" in m.model_key]
        assert found.model_key == "qwharf/my-tiny"
        (loaded,) = client.llm.list_loaded()
        assert loaded.identifier == "qwharf/my-tiny"
        assert loaded.get_context_length() == 700
        mine = client.llm.load_new_instance(
            "qwharf/my-tiny", "second", config={"contextLength": 1024}
        )
        assert mine.get_context_length() == 1024
        mine.unload()
        with pytest.raises(Exception, match="not found"):
            client.llm.load_new_instance("no/such")
    assert [i.context for i in server.instances] == [700]
    assert not [p for p in server.packets if p.get("type") == "communicationWarning"]


def test_the_recordings_are_answered_alike(server: LmStudioDouble, spec: DeploymentSpec) -> None:
    """What the double answers over the websockets has the keys that clients were seen to accept."""
    PLATFORM.deploy(spec, quiet)
    path = Path(__file__).parents[1] / "recordings" / "lmstudio" / "python.jsonl"
    asked: dict[Any, str] = {}
    compared = set()
    for line in path.read_text("utf-8").splitlines():
        packet = json.loads(line)["packet"]
        if packet["type"] == "rpcCall":
            asked[packet["callId"]] = packet["endpoint"]
        if packet["type"] != "rpcResult" or packet["callId"] not in asked:
            continue
        endpoint = asked.pop(packet["callId"])
        parameter = {"specifier": {"query": {}}, "identifier": "qwharf/my-tiny"}
        mine = server.rpc(endpoint, parameter)
        compared.add(endpoint)
        if endpoint == "unloadModel":
            assert ("result" in packet, mine) == (False, None)
            continue
        theirs = packet["result"]
        if isinstance(theirs, list):
            theirs, mine = theirs[0], mine[0]
        assert shape(mine) == shape(theirs), endpoint
    assert compared >= {"listDownloadedModels", "listLoaded", "getModelInfo", "unloadModel"}


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return type(value).__name__


def test_moving_lm_studios_home(
    server: LmStudioDouble, home: Home, studio: Path, spec: DeploymentSpec
) -> None:
    """What was placed is taken back from where it was placed."""
    before = tree(studio)
    PLATFORM.deploy(spec, quiet)
    shutil.copytree(studio, home.path / "new")
    (home.path / ".lmstudio-home-pointer").write_text(str(home.path / "new"))
    PLATFORM.release(spec)
    assert tree(studio) == before
