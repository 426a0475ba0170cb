"""The commands of engines: as written down, and taken by each engine's own parser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_homes import install
from launch_specs import PORT, SPECS, spec

from qwharf import engines, platforms
from qwharf.platforms import mlx_server

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = {"vllm": "0.32.0", "sglang": "0.5.23", "mlx": "0.32.2"}
PATIENCE_SECONDS = 280
NAMED = [(platform, name) for platform, by_name in SPECS.items() for name in by_name]


@pytest.mark.parametrize(("platform", "name"), NAMED)
def test_the_command_is_as_written_down(
    platform: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform in VERSIONS:
        install(monkeypatch, tmp_path, platform, VERSIONS[platform])
    driver = platforms.get(platform)
    assert platforms.is_child(driver)
    launch = driver.launch(spec(platform, name), PORT)
    assert launch == driver.launch(spec(platform, name), PORT)
    lines = [*(f"{k}={v}" for k, v in sorted(launch.env.items())), *_broken(launch.argv, tmp_path)]
    written = (GOLDEN / f"{platform}-{name}.txt").read_text("utf-8")
    assert "\n".join(lines) + "\n" == written
    assert launch.base_url == f"http://127.0.0.1:{PORT}"


def _broken(argv: Sequence[str], home: Path) -> list[str]:
    """One option a line, with what differs between machines named."""
    words = [word.replace(str(Path(mlx_server.__file__).parent), "PLATFORMS") for word in argv]
    words = ["PYTHON" if word == sys.executable else word for word in words]
    words = [word.replace(str(home), "HOME") for word in words]
    quoted = [f"'{word}'" if " " in word or '"' in word else word for word in words]
    return " ".join(quoted).replace(" --", "\n  --").split("\n")


# ------------------------------------------------------------------------- the engines' parsers


def parsed(engine: str, code: str, *arguments: Any) -> Any:
    """What ``code`` prints as JSON, run by the interpreter of ``engine``.

    The engine is whichever :mod:`qwharf.engines` finds: qwharf's own, or one on PATH.
    """
    found = engines.find(engine)
    if found is None or found.problems:
        pytest.skip(f"{engine} is not installed: `qwharf engine install {engine}`")
    done = subprocess.run(
        [str(found.python), "-c", code, json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


VLLM = """
import json, sys
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
from vllm.engine.arg_utils import AsyncEngineArgs
parser = make_arg_parser(FlexibleArgumentParser())
commands, folder = json.loads(sys.argv[1])
out = {}
for name, words in commands.items():
    args = parser.parse_args(words)
    validate_parsed_serve_args(args)
    args.model = args.model_tag
    out[name] = {k: str(v) for k, v in vars(args).items()}
args = parser.parse_args(commands["stretched"])
args.model = args.tokenizer = folder
args.quantization = None
config = AsyncEngineArgs.from_cli_args(args).create_model_config()
out["config"] = [config.max_model_len, config.hf_config.rope_parameters]
print(json.dumps(out))
"""


@pytest.mark.engines
@pytest.mark.platforms
def test_vllm_takes_its_commands(stretchable: Path) -> None:
    """By its own parser; and the stretched context by its own reading of the model."""
    commands = {n: _words("vllm", n)[1:] for n in SPECS["vllm"]}
    for words in commands.values():
        assert words[0] == "serve"
    options = {n: words[1:] for n, words in commands.items()}
    found = parsed("vllm", VLLM, options, str(stretchable))
    assert found["gpu"]["tool_call_parser"] == "hermes"
    assert found["gpu"]["reasoning_parser"] == "qwen3"
    assert found["instruct"]["reasoning_parser"] == ""
    assert found["experts"]["enable_expert_parallel"] == "True"
    assert found["experts"]["kv_cache_dtype"] == "fp8"
    assert "law" in found["adapters"]["lora_modules"]
    length, rope = found["config"]
    assert length == 131_072
    assert rope["rope_type"] == "yarn"
    assert rope["rope_theta"] == 1_000_000


SGLANG = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
parser = argparse.ArgumentParser()
ServerArgs.add_cli_args(parser)
(commands,) = json.loads(sys.argv[1])
out = {}
for name, words in commands.items():
    args = parser.parse_args(words)
    out[name] = {k: str(v) for k, v in vars(args).items()}
print(json.dumps(out))
"""


@pytest.mark.engines
@pytest.mark.platforms
def test_sglang_takes_its_commands() -> None:
    """By its own parser; what it makes of a stretched context, ``test_sglang_stand_in.py`` asks."""
    commands = {n: _words("sglang", n)[3:] for n in SPECS["sglang"]}
    found = parsed("sglang", SGLANG, commands)
    assert found["gpu"]["tool_call_parser"] == "qwen"
    assert found["gpu"]["reasoning_parser"] == "qwen3"
    assert found["thinking"]["reasoning_parser"] == "qwen3-thinking"
    assert found["instruct"]["reasoning_parser"] == "None"
    assert found["experts"]["ep_size"] == "4"
    assert found["experts"]["kv_cache_dtype"] == "fp8_e4m3"
    assert "law=/adapters/law" in found["adapters"]["lora_paths"]


MLX = """
import json, sys
import mlx_lm.server as server
out = {}
server.run = lambda host, port, provider: out.update({name: vars(provider.cli_args)})
for name, words in json.loads(sys.argv[1])[0].items():
    sys.argv = ["mlx_lm.server", *words]
    server.main()
print(json.dumps(out))
"""


@pytest.mark.engines
@pytest.mark.platforms
def test_mlx_takes_its_commands() -> None:
    """Those that are not our child's own, by mlx_lm.server's parser."""
    commands = {}
    for name in SPECS["mlx"]:
        own, rest = mlx_server.options().parse_known_args(_words("mlx", name)[3:])
        assert own.context_length == spec("mlx", name).context_tokens
        commands[name] = rest
    found = parsed("mlx", MLX, commands)
    assert found["apple"]["decode_concurrency"] == 4
    assert found["apple"]["chat_template_args"] == {"enable_thinking": True}
    assert found["apple"]["temp"] == 0.6
    assert found["small-cache"]["kv_bits"] == 8
    # 8B's 36 layers x 8 heads x 128 values, keys and values, in 16 bits
    assert found["stretched"]["prompt_cache_bytes"] == 147_456 * 131_072


def _words(platform: str, name: str) -> list[str]:
    driver = platforms.get(platform)
    assert platforms.is_child(driver)
    return list(driver.launch(spec(platform, name), PORT).argv)
