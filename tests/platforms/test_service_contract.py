"""What every service must do: a program that runs for itself and takes one more model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lm_studio_double import LmStudioDouble
from ollama_double import OllamaDouble
from services import Home, quiet, tree

from qwharf import platforms
from qwharf.artifacts import uses
from qwharf.errors import FormatUnavailable, QwharfError, UsageError
from qwharf.platforms import ServicePlatform
from qwharf.types import DeploymentSpec, Format

SERVICES = ("ollama", "lmstudio")


@dataclass
class Case:
    """A service, a folder of models that it has, and a deployment that it can take."""

    platform: ServicePlatform
    models: Path
    spec: DeploymentSpec
    home: Home


@pytest.fixture(params=SERVICES)
def case(request: pytest.FixtureRequest, home: Home, tiny_gguf: Path) -> Iterator[Case]:
    platform: Any = platforms.get(request.param)
    with ExitStack() as stack:
        if request.param == "ollama":
            models = home.path / ".ollama"
            home.patch.setenv("OLLAMA_MODELS", str(models))
            server: Any = stack.enter_context(OllamaDouble(models))
            home.patch.setenv("OLLAMA_HOST", server.url)
        else:
            models = home.path / ".lmstudio"
            server = stack.enter_context(LmStudioDouble(models))
            home.patch.setenv("LMSTUDIO_URL", server.url)
        models.mkdir(exist_ok=True)
        yield Case(platform, models, home.spec(home.keep(tiny_gguf), request.param), home)


def test_it_is_a_service(case: Case) -> None:
    assert not platforms.is_child(case.platform)
    here = case.platform.availability()
    assert here.installed
    assert here.where
    assert case.platform.engine().startswith(case.platform.name)
    assert case.spec.format in case.platform.formats()


@pytest.mark.parametrize("name", SERVICES)
def test_asking_loads_no_engine(name: str) -> None:
    code = (
        "import sys; from qwharf import platforms\n"
        f"p = platforms.get({name!r})\n"
        "p.availability(); p.engine(); p.formats()\n"
        "print('xllamacpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "False"


def test_its_life(case: Case) -> None:
    before = tree(case.models)
    case.platform.check(case.spec)
    steps = case.platform.steps(case.spec)
    assert steps == case.platform.steps(case.spec)
    assert tree(case.models) == before, "saying it changes nothing"
    assert {s.what for s in steps} <= {"link", "copy", "write", "start", "request"}
    assert case.platform.status(case.spec) is None
    told: list[str] = []
    served = case.platform.deploy(case.spec, told.append)
    assert told
    assert served.applied.context_tokens == case.spec.context_tokens
    assert case.platform.deploy(case.spec, quiet) == served
    assert case.platform.status(case.spec) == served
    assert {str(case.models / name) for name in tree(case.models)} == {
        s.where for s in steps if s.what in ("link", "write")
    }
    assert list(case.platform.log(case.spec, 10)) == []
    case.platform.release(case.spec)
    case.platform.release(case.spec)
    assert tree(case.models) == before
    assert case.platform.status(case.spec) is None


def test_the_store_knows_of_it(case: Case) -> None:
    store = case.home.store
    assert uses.find(store) == {}
    case.platform.deploy(case.spec, quiet)
    (use,) = uses.find(store)[case.spec.artifact_id]
    assert use.platform == case.platform.name
    assert use.deployment == case.spec.name
    assert use.shared
    assert use.path.samefile(case.spec.artifact_path)
    case.platform.release(case.spec)
    assert uses.find(store) == {}


def test_a_damaged_record_does_not_stop_it(case: Case) -> None:
    case.platform.deploy(case.spec, quiet)
    folder = case.home.store.root / "uses" / case.platform.name
    (record,) = folder.iterdir()
    record.write_text("{nonsense")
    case.platform.release(case.spec)
    assert not record.exists()
    assert tree(case.models), "what it told of is not known for ours any more"


def test_removing_from_our_store_leaves_it_running(case: Case) -> None:
    case.platform.deploy(case.spec, quiet)
    store = case.home.store
    weights = case.spec.artifact_path.read_bytes()
    (use,) = uses.find(store)[case.spec.artifact_id]
    store.remove(case.spec.artifact_id)
    store.gc()
    assert use.path.read_bytes() == weights
    assert case.platform.status(case.spec) is not None
    case.platform.release(case.spec)
    assert tree(case.models) == {}


@pytest.mark.parametrize(
    ("fields", "error", "names"),
    [
        ({"format": Format("safetensors", "bf16")}, FormatUnavailable, "safetensors:bf16"),
        ({"format": Format("gguf", "q9_x")}, FormatUnavailable, "gguf:q9_x"),
        ({"context_tokens": 0}, UsageError, "0"),
        ({"context_tokens": -5}, UsageError, "-5"),
        ({"context_tokens": 2**40}, UsageError, "1099511627776"),
        ({"context_tokens": 2049}, UsageError, "2,048"),
        ({"parallel": 0}, UsageError, "0"),
        ({"parallel": 100_000}, UsageError, "100000"),
        ({"threads": 0}, UsageError, "0"),
        ({"threads": 10**6}, UsageError, "1000000"),
        ({"adapters": {"mine": Path("/a")}}, UsageError, "mine"),
        ({"kv_cache_type": "fp8"}, UsageError, "f16"),
        ({"artifact_path": Path("/nonexistent/model.gguf")}, QwharfError, "/nonexistent"),
    ],
)
def test_nonsense_is_refused(
    fields: dict[str, Any], error: type[QwharfError], names: str, case: Case
) -> None:
    with pytest.raises(error) as e:
        case.platform.check(replace(case.spec, **fields))
    assert names in f"{e.value.subject} {e.value.found} {e.value.expected}"
    assert e.value.found
    assert e.value.hint


def test_both_have_one_copy(home: Home, tiny_gguf: Path) -> None:
    """Ollama, LM Studio and our own store, and the disk has the weights once."""
    home.patch.setenv("OLLAMA_MODELS", str(home.path / ".ollama"))
    artifact = home.keep(tiny_gguf)
    ollama: Any = platforms.get("ollama")
    studio: Any = platforms.get("lmstudio")
    with (
        OllamaDouble(home.path / ".ollama") as one,
        LmStudioDouble(home.path / ".lmstudio") as two,
    ):
        home.patch.setenv("OLLAMA_HOST", one.url)
        home.patch.setenv("LMSTUDIO_URL", two.url)
        before = used(home.path)
        ollama.deploy(home.spec(artifact, "ollama"), quiet)
        studio.deploy(home.spec(artifact, "lmstudio"), quiet)
        assert used(home.path) - before < artifact.size_bytes / 4
        assert {u.platform for u in uses.find(home.store)[artifact.id]} == set(SERVICES)
        ollama.release(home.spec(artifact, "ollama"))
        studio.release(home.spec(artifact, "lmstudio"))


def used(root: Path) -> int:
    """Bytes on the disk, as ``du`` counts them."""
    found = {(s.st_dev, s.st_ino): s.st_blocks * 512 for s in (p.lstat() for p in root.rglob("*"))}
    return sum(found.values())
