"""What the Ollama driver refuses, before Ollama would."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ollama_double import OllamaDouble
from own_models import own_model
from services import Home, quiet, tree

from qwharf.errors import (
    Conflict,
    QwharfError,
)
from qwharf.platforms.ollama import OllamaPlatform
from qwharf.types import DeploymentSpec

PLATFORM = OllamaPlatform()


# ------------------------------------------------------------------------------------- refusing


def test_two_contexts_on_the_same_weights_are_refused(
    server: OllamaDouble, models: Path, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    before = tree(models)
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, name="long", context_tokens=900), quiet)
    assert "tiny" in e.value.found
    assert "num_ctx 700" in e.value.found
    assert "num_ctx 900" in e.value.expected
    assert tree(models) == before


def test_names_that_ollama_takes_for_one_are_refused(
    server: OllamaDouble, spec: DeploymentSpec
) -> None:
    PLATFORM.deploy(spec, quiet)
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, name="Tiny"), quiet)
    assert "qwharf/tiny" in e.value.found


def test_a_model_of_the_users_is_never_replaced(
    server: OllamaDouble, models: Path, spec: DeploymentSpec, tiny_gguf: Path
) -> None:
    own_model(models, tiny_gguf, "qwharf/tiny/latest")
    before = tree(models)
    with pytest.raises(Conflict):
        PLATFORM.deploy(spec, quiet)
    assert tree(models) == before
    PLATFORM.release(spec)
    assert tree(models) == before


def test_weights_in_parts_are_refused(
    server: OllamaDouble, spec: DeploymentSpec, tiny_gguf: Path, tmp_path: Path
) -> None:
    part = tmp_path / "m-00001-of-00002.gguf"
    shutil.copy(tiny_gguf, part)
    shutil.copy(tiny_gguf, tmp_path / "m-00002-of-00002.gguf")
    with pytest.raises(QwharfError) as e:
        PLATFORM.check(replace(spec, artifact_path=part))
    assert e.value.hint


def test_a_kv_cache_that_contradicts_the_servers_is_refused(
    server: OllamaDouble, home: Home, spec: DeploymentSpec
) -> None:
    with pytest.raises(Conflict) as e:
        PLATFORM.deploy(replace(spec, kv_cache_type="q8_0"), quiet)
    assert "OLLAMA_KV_CACHE_TYPE=q8_0" in e.value.hint
    home.patch.setenv("OLLAMA_KV_CACHE_TYPE", "q8_0")
    assert PLATFORM.deploy(replace(spec, kv_cache_type="q8_0"), quiet)


def test_parallel_is_the_servers_and_that_is_told(
    server: OllamaDouble, spec: DeploymentSpec
) -> None:
    told: list[str] = []
    PLATFORM.deploy(replace(spec, parallel=4), told.append)
    assert any("OLLAMA_NUM_PARALLEL" in t for t in told)
