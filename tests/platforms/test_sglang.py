"""What is peculiar to SGLang: where it can run, and options by version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_homes import install
from engine_process import spec_of
from launch_specs import spec

from qwharf.errors import FormatUnavailable
from qwharf.platforms import sglang_flags
from qwharf.platforms.isolated import numbers
from qwharf.platforms.sglang import Sglang
from qwharf.types import DeploymentSpec, Format

PLATFORM = Sglang()
BF16 = Format("safetensors", "bf16")


def tiny(tiny_gguf: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {"platform": "sglang", "format": BF16, "kv_cache_type": "bf16"}
    return spec_of(tiny_gguf.parent / "checkpoint", **wishes | fields)


def test_what_only_checks_commands_does_not_serve(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "sglang", "0.5.23", "parser")
    assert "command lines" in PLATFORM.availability().reason
    with pytest.raises(FormatUnavailable):
        PLATFORM.check(tiny(tiny_gguf, gpus=1))


def test_a_gpu_build_takes_a_gpu_plan(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "sglang", "0.5.23")
    for fields in ({"gpus": 1}, {"gpus": 2, "kv_cache_type": "fp8"}, {"gpus": 4}):
        PLATFORM.check(tiny(tiny_gguf, **fields))


@pytest.mark.parametrize(
    ("version", "tools", "rope", "sampling", "chat"),
    [
        ("0.5.3", "qwen25", "rope_scaling", False, False),
        ("0.5.8", "qwen", "rope_scaling", True, False),
        ("0.5.10.post1", "qwen", "rope_parameters", True, False),
        ("0.5.18", "qwen", "rope_parameters", True, True),
        ("0.5.23", "qwen", "rope_parameters", True, True),
    ],
)
def test_names_change_with_the_version(
    version: str, tools: str, rope: str, sampling: bool, chat: bool
) -> None:
    wanted = spec("sglang", "stretched")
    words = sglang_flags.arguments(wanted, 1, numbers(version))
    assert words[words.index("--tool-call-parser") + 1] == tools
    changes = sglang_flags.yarn_overrides(wanted, numbers(version))
    assert changes is not None
    assert set(changes) == {rope, "max_position_embeddings"}
    assert ("--sampling-defaults" in words) == sampling
    assert ("--default-chat-template-kwargs" in words) == chat
