"""llama.cpp as it was installed: chosen by the deployment, started with the same meaning."""

import stat
import sys
from pathlib import Path

import pytest

from qwharf import platforms
from qwharf.engines.building import Order, make
from qwharf.engines.progress import quiet
from qwharf.errors import FormatUnavailable
from qwharf.platforms import is_child
from qwharf.platforms.llama_log import applied, explain, phase
from qwharf.settings import Settings
from qwharf.testing import TINY
from qwharf.types import DeploymentSpec, Format, Launch

LOG = """\
0.00.082.240 I srv  llama_server: initializing ...
0.00.219.106 I srv    load_model: loading model '/pocket.gguf'
0.00.300.000 I load_tensors:          CPU model buffer size =     3.66 MiB
0.00.638.702 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.642.926 I sched_reserve:        CPU compute buffer size =     8.51 MiB
0.00.700.536 I srv    load_model: initializing, n_slots = 1, n_ctx_slot = 2048, kv_unified = 'false'
0.01.534.473 I srv  llama_server: listening on http://127.0.0.1:18778
"""


def spec(version: str | None, gpu_layers: int = 0) -> DeploymentSpec:
    return DeploymentSpec(
        name="small",
        platform="llama.cpp",
        model="tiny",
        thinking="hybrid",
        format=Format("gguf", "q8_0"),
        artifact_id="0" * 64,
        artifact_path=Path("/store/model.gguf"),
        architecture=TINY,
        context_tokens=2048,
        gpu_layers=gpu_layers,
        engine_version=version,
    )


def launch(spec: DeploymentSpec) -> Launch:
    platform = platforms.get("llama.cpp")
    assert is_child(platform)
    return platform.launch(spec, 5001)


def install(settings: Settings, kind: str) -> Path:
    """A build that says its version, and no more."""

    def fill(folder: Path, log: object) -> dict[str, object]:
        program = folder / "bin" / "llama-server"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\necho 'version: 1'\n", "utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return {"compiled": True}

    order = Order(engine="llama.cpp", version=kind, variant=kind, disk_bytes=1)
    return make(order, fill, settings, quiet).folder


def test_the_embedded_one_is_the_default(settings: Settings) -> None:
    install(settings, "native")
    assert launch(spec(None)).argv[:3] == (sys.executable, "-m", "qwharf.platforms.llama_server")


def test_the_native_one_is_taken_when_it_is_asked_for(settings: Settings) -> None:
    folder = install(settings, "native")
    made = launch(spec("native"))
    assert made.argv[0] == str(folder / "bin/llama-server")
    assert "--die-with-parent" not in made.argv
    words = " ".join(made.argv)
    for option in ("--ctx-size 2048", "--port 5001", "--fit off", "--no-context-shift", "--no-ui"):
        assert option in words
    assert "--no-kv-offload" in words and "--no-kv-offload" not in launch(spec("native", 3)).argv
    assert made.env["OMP_WAIT_POLICY"] == "passive"


def test_one_that_is_not_installed_is_refused(settings: Settings) -> None:
    with pytest.raises(FormatUnavailable) as refused:
        launch(spec("native"))
    assert "qwharf engine install llama.cpp --native" in refused.value.hint


def test_its_own_server_is_understood() -> None:
    lines = LOG.splitlines()
    assert [p for line in lines if (p := phase(line))] == [
        "starting the engine",
        "reading the file's header",
        "ready",
    ]
    twice = applied([*lines, *lines])
    assert twice.weights_bytes == round(3.66 * 2**20) and twice.context_tokens == 2048
    assert "SIGKILL" in explain([*lines, "0.02.000.000 E srv  send_error: of a request"], -9)
