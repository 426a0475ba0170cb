"""What is peculiar to vLLM: which installation serves what, and options by version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_homes import install
from engine_process import spec_of
from launch_specs import QWEN3_8B, SAMPLING, spec

from qwharf.errors import FormatUnavailable, QwharfError, UsageError
from qwharf.platforms import vllm, vllm_flags
from qwharf.platforms.isolated import numbers
from qwharf.platforms.vllm import Vllm
from qwharf.types import DeploymentSpec, Format

PLATFORM = Vllm()
BF16 = Format("safetensors", "bf16")


def tiny(tiny_gguf: Path, **fields: Any) -> DeploymentSpec:
    wishes: dict[str, Any] = {"platform": "vllm", "format": BF16, "kv_cache_type": "bf16"}
    return spec_of(tiny_gguf.parent / "checkpoint", **wishes | fields)


# ----------------------------------------------------------------------------- installations


def test_a_missing_engine_is_told_with_what_to_do(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "mlx", "0.32.2")  # another one
    here = PLATFORM.availability()
    assert (here.installed, here.version) == (False, None)
    assert here.hint == "`qwharf engine install vllm`"
    assert PLATFORM.engine() == "vllm not installed"
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(tiny(tiny_gguf))
    assert e.value.hint == here.hint
    assert PLATFORM.launch(tiny(tiny_gguf), 1).argv[:2] == ("vllm", "serve")


def test_an_old_engine_is_refused(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "vllm", "0.8.5", "cpu")
    assert "too old" in PLATFORM.availability().reason
    with pytest.raises(FormatUnavailable):
        PLATFORM.check(tiny(tiny_gguf))


def test_a_broken_engine_is_refused(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = install(monkeypatch, tmp_path, "vllm", "0.32.0", "cpu")
    PLATFORM.check(tiny(tiny_gguf))
    python = next(p for p in place.rglob("python*") if p.is_symlink())
    python.unlink()
    assert not PLATFORM.availability().installed
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(tiny(tiny_gguf))
    assert "Python" in e.value.found


def test_the_version_asked_for_is_used(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "vllm", "0.32.0", "cpu")
    install(monkeypatch, tmp_path, "vllm", "0.16.0", "cpu")
    newest, older = tiny(tiny_gguf), tiny(tiny_gguf, engine_version="0.16.0")
    assert "0.32.0" in PLATFORM.launch(newest, 1).argv[0]
    assert "0.16.0" in PLATFORM.launch(older, 1).argv[0]
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(tiny(tiny_gguf, engine_version="0.31.0"))
    assert "vllm 0.31.0 is not installed" in e.value.found
    assert "vllm==0.31.0" in e.value.hint


# ----------------------------------------------------------------------------------- refusals


def test_blocks_of_fp8_want_a_processor_with_tiles(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "vllm", "0.32.0", "cpu")
    wanted = tiny(tiny_gguf, format=Format("safetensors", "fp8"))
    monkeypatch.setattr(vllm, "_has_amx", lambda: False)
    with pytest.raises(FormatUnavailable) as e:
        PLATFORM.check(wanted)
    assert "AMX" in e.value.found
    assert "fp8-channel" in e.value.hint
    monkeypatch.setattr(vllm, "_has_amx", lambda: True)
    with pytest.raises(QwharfError) as e:  # the folder is none in FP8, which is looked at later
        PLATFORM.check(wanted)
    assert "AMX" not in e.value.found


def test_a_gpu_build_takes_a_gpu_plan(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "vllm", "0.33.0", "cuda")
    for fields in ({"gpus": 1}, {"gpus": 2, "kv_cache_type": "fp8"}, {"gpus": 4}):
        PLATFORM.check(tiny(tiny_gguf, **fields))
    with pytest.raises(UsageError):
        PLATFORM.check(tiny(tiny_gguf, gpus=1, context_tokens=8193))


# ------------------------------------------------------------------------------------ options


def words(version: str, **fields: Any) -> tuple[list[str], dict[str, str]]:
    wanted = spec_of(Path("/m"), architecture=QWEN3_8B, format=BF16, sampling=SAMPLING, **fields)
    return (
        vllm_flags.arguments(wanted, 1, numbers(version)),
        vllm_flags.environment(wanted, numbers(version)),
    )


def test_old_versions_are_spared_new_options() -> None:
    old, env = words("0.12.0", context_tokens=4096)
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"  # whole GiB
    assert "--kv-cache-memory-bytes" not in old
    assert "--default-chat-template-kwargs" not in old
    assert "--disable-access-log-for-endpoints" not in old
    new, env = words("0.32.0", context_tokens=4096)
    assert "VLLM_CPU_KVCACHE_SPACE" not in env
    assert "--default-chat-template-kwargs" in new


def test_the_cache_holds_every_request_whole() -> None:
    """Blocks of 128 tokens, each of 147,456 bytes a token in Qwen3-8B."""
    new, _ = words("0.32.0", context_tokens=1000, parallel=3)
    size = int(new[new.index("--kv-cache-memory-bytes") + 1])
    assert size == (8 * 3 + vllm_flags.SPARE_BLOCKS) * 128 * 147_456


def test_yarn_comes_in_only_where_needed() -> None:
    long = spec("vllm", "stretched")
    assert vllm_flags.yarn_overrides(replace(long, context_tokens=40_960)) is None
    at_twice = vllm_flags.yarn_overrides(replace(long, context_tokens=65_536))
    assert at_twice is not None
    assert at_twice["max_position_embeddings"] == 65_536
    assert at_twice["rope_parameters"]["factor"] == 2.0
    # A file that has YaRN of its own keeps it.
    own = replace(QWEN3_8B, yarn_factor=4.0, yarn_original_context_tokens=32_768)
    assert vllm_flags.yarn_overrides(replace(long, architecture=own)) is None


def test_the_rope_of_a_2507_model_is_kept() -> None:
    """Without rope_theta a dense model would fall back to 1e6, a mixture to 10,000."""
    long = replace(spec("vllm", "instruct"), context_tokens=500_000)
    changes = vllm_flags.yarn_overrides(long)
    assert changes is not None
    assert changes["rope_parameters"]["rope_theta"] == 1e7
