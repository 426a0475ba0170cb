"""The sum against what the engine itself reports, on a small model.

``python -m benchmarks.memory`` does the same at real size.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from qwharf import memory, platforms
from qwharf.artifacts.convert import convert
from qwharf.testing import TINY, TINY_MOE, write_synthetic_checkpoint
from qwharf.types import Architecture, DeploymentSpec, Format, KvCacheType

MIB = 2**20
LOGGED = 0.01 * MIB
"""The engine's log has two decimals."""


@pytest.fixture(scope="module", params=["dense", "experts"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("model")
    shape = TINY if request.param == "dense" else TINY_MOE
    written = write_synthetic_checkpoint(shape, folder / "hf", vocab="tiny")
    format = Format("gguf", "q4_k_m")
    convert(folder / "hf", format, folder / "model.gguf")
    return written.architecture, format, folder / "model.gguf"


def reported(spec: DeploymentSpec, log: Path) -> platforms.Applied:
    platform = platforms.get("llama.cpp")
    platform.check(spec)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    launch = platform.launch(spec, port)
    with (
        log.open("wb") as out,
        subprocess.Popen(
            launch.argv,
            env={**os.environ, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as child,
    ):
        try:
            for _ in range(2_000):
                try:
                    urllib.request.urlopen(launch.base_url + launch.ready_path, timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    assert child.poll() is None, log.read_text("utf-8", "replace")[-2000:]
                    time.sleep(0.05)
        finally:
            child.kill()
    return platform.applied(log.read_text("utf-8", "replace").splitlines())


@pytest.mark.engines
@pytest.mark.parametrize(("context", "kv", "parallel"), [(2_048, "f16", 1), (1_024, "q8_0", 2)])
def test_the_engine_reports_what_was_predicted(
    model: tuple[Architecture, Format, Path],
    context: int,
    kv: KvCacheType,
    parallel: int,
    tmp_path: Path,
) -> None:
    arch, format, path = model
    found = reported(
        DeploymentSpec(
            name="tiny",
            platform="llama.cpp",
            model="tiny",
            thinking="hybrid",
            format=format,
            artifact_id="",
            artifact_path=path,
            architecture=arch,
            context_tokens=context,
            parallel=parallel,
            kv_cache_type=kv,
            threads=1,
        ),
        tmp_path / "log",
    )
    lines = memory.llama_cpp_lines(
        arch, format, context_tokens=context, parallel=parallel, kv_cache_type=kv
    )
    predicted = {x.label: x.size_bytes for x in lines}
    assert found.weights_bytes == pytest.approx(predicted["weights"], abs=2 * LOGGED)
    assert found.kv_bytes == pytest.approx(predicted["KV cache"], abs=LOGGED)
    assert found.context_tokens == context
    total = sum(size for label, size in predicted.items() if label != "process")
    assert found.total_bytes == pytest.approx(total, rel=0.03, abs=4 * LOGGED)
