"""Optional: SGLang's real server on a processor, with a stand-in for its kernels.

``QWHARF_SGLANG_STAND_IN`` names the interpreter of an environment with SGLang and what its server
imports, but for its kernels. One is made of what ``qwharf engine install sglang --parser`` installs
(Python 3.11) with these beside it::

    pip install --no-deps compressed-tensors==0.18.0 torchvision==0.28.0 xgrammar==0.2.7 \\
        openai-harmony==0.0.4 apache-tvm-ffi==0.1.11
    pip install dill sentencepiece loguru gguf uvicorn uvloop fastapi openai partial-json-parser \\
        setproctitle einops jsonschema soundfile python-multipart pandas

See ``sglang_stand_in/launch.py`` for what is real and what is not.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_process import Engine, free_port, spec_of
from launch_specs import spec as golden

import qwharf
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.platforms import sglang_flags
from qwharf.platforms.isolated import numbers
from qwharf.platforms.sglang import Sglang
from qwharf.types import DeploymentSpec, Format, Launch

PYTHON = os.environ.get("QWHARF_SGLANG_STAND_IN")
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(PYTHON is None, reason="QWHARF_SGLANG_STAND_IN names no interpreter"),
    pytest.mark.timeout(1200),
]
LAUNCHER = Path(__file__).parent / "sglang_stand_in" / "launch.py"
POCKET = Path(qwharf.__file__).parent / "catalog" / "pocket"
PLATFORM = Sglang()
WITHOUT_KERNELS = (
    *("--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--mem-fraction-static", "0.1", "--disable-overlap-schedule", "--disable-cuda-graph"),
    "--skip-server-warmup",
)


def spec() -> DeploymentSpec:
    return spec_of(
        POCKET,
        name="pocket",
        platform="sglang",
        format=Format("safetensors", "bf16"),
        architecture=read_checkpoint(POCKET).architecture,
        context_tokens=2048,
        kv_cache_type="bf16",
        parallel=2,
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    port = free_port()
    options = sglang_flags.arguments(spec(), port, numbers("0.5.23"))
    launch = Launch(
        argv=(str(PYTHON), str(LAUNCHER), *options, *WITHOUT_KERNELS),
        env={**sglang_flags.environment(spec()), "PYTHONUNBUFFERED": "1"},
        base_url=f"http://127.0.0.1:{port}",
    )
    engine = Engine(launch, tmp_path_factory.mktemp("log") / "log")
    try:
        assert engine.await_ready(), engine.log()[-30:]
        yield engine
    finally:
        engine.end()


def test_it_thinks_and_answers(engine: Engine) -> None:
    message = engine.chat("Hi", max_tokens=100, temperature=0)["choices"][0]["message"]
    assert message["reasoning_content"]
    assert message["content"]
    off = {"chat_template_kwargs": {"enable_thinking": False}, "max_tokens": 100, "temperature": 0}
    message = engine.chat("Hi", **off)["choices"][0]["message"]
    assert not message["reasoning_content"]
    assert message["content"]


READING = """
import json, sys
sys.path.insert(0, sys.argv[1])
import launch
from sglang.srt.utils.hf_transformers_utils import get_config, get_context_length
told = json.loads(sys.argv[3])
config = get_config(sys.argv[2], trust_remote_code=False, model_override_args=told)
print(json.dumps([get_context_length(config), config.rope_parameters]))
"""


def test_it_reads_a_stretched_context_as_meant(stretchable: Path) -> None:
    argv = sglang_flags.arguments(golden("sglang", "stretched"), 1, numbers("0.5.23"))
    overrides = argv[argv.index("--json-model-override-args") + 1]
    words = (str(PYTHON), "-c", READING, str(LAUNCHER.parent), str(stretchable), overrides)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    length, rope = json.loads(done.stdout.splitlines()[-1])
    assert length == 131_072
    assert rope["rope_type"] == "yarn"
    assert rope["rope_theta"] == 1_000_000


def test_its_log_is_understood(engine: Engine) -> None:
    applied = PLATFORM.applied(engine.log())
    assert applied.context_tokens == 2048
    phases = [p for p in map(PLATFORM.phase, engine.log()) if p is not None]
    assert phases[0] == "starting the engine"
    assert "loading weights" in phases
    assert phases[-1] == "ready"


def test_what_does_not_fit_the_context_is_refused(engine: Engine) -> None:
    asked = {"messages": [{"role": "user", "content": "x " * 4000}], "max_tokens": 1}
    refused = engine.post("/v1/chat/completions", asked)
    assert refused.status_code == 400
    assert "context" in refused.text
