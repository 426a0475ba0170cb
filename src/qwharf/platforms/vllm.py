"""The platform ``vllm``: vLLM's server in its own environment, on NVIDIA cards or a processor.

What it is told: :mod:`qwharf.platforms.vllm_flags`; what its log says:
:mod:`qwharf.platforms.vllm_log`; what is refused before a start, here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from qwharf.engines import Installed
from qwharf.errors import FormatUnavailable, UsageError
from qwharf.platforms import checkpoints, isolated, vllm_flags, vllm_log
from qwharf.platforms.base import Applied, Availability
from qwharf.types import DeploymentSpec, Format, Launch

ENGINE = isolated.Engine(name="vllm", package="vllm", least=vllm_flags.LEAST, latest="0.32.0")
NOT_GGUF = "vLLM reads no GGUF files: `--platform llama.cpp` does, or `--format safetensors:bf16`"


class Vllm:
    """The platform ``vllm``."""

    name = "vllm"

    def engine(self) -> str:
        """Name and version, e.g. ``vllm 0.32.0``."""
        return ENGINE.text()

    def availability(self) -> Availability:
        """Whether vLLM is in an environment of ours, or of the machine's."""
        return ENGINE.availability()

    def formats(self) -> tuple[Format, ...]:
        """Safetensors, plain and quantised; which of them this machine can run, :meth:`check`
        tells.
        """
        return checkpoints.SAFETENSORS

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what vLLM would refuse or die of."""
        installed = ENGINE.require(spec)
        checkpoints.check_format(spec, checkpoints.SAFETENSORS, NOT_GGUF)
        checkpoints.check_numbers(spec, tuple(vllm_flags.KV_CACHE_TYPES))
        _check_device(spec, installed)
        checkpoint = checkpoints.check_folder(spec)
        checkpoints.check_split(spec, checkpoints.group_of(checkpoint.config, spec))
        checkpoints.check_adapters(spec)

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """``vllm serve`` with what ``spec`` leads to."""
        version = ENGINE.version(spec)
        return Launch(
            argv=(ENGINE.command(spec, "vllm"), *vllm_flags.arguments(spec, port, version)),
            env=vllm_flags.environment(spec, version),
            base_url=f"http://{vllm_flags.HOST}:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        """What begins with this line of the log."""
        return vllm_log.phase(log_line)

    def applied(self, log: Iterable[str]) -> Applied:
        """What the latest start took."""
        return vllm_log.applied(log)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the latest start failed, or the engine died."""
        return vllm_log.explain(log, exit_code)


def _check_device(spec: DeploymentSpec, installed: Installed) -> None:
    """The build that is installed computes on what was planned with, and knows the format there."""
    if spec.gpus and installed.variant == "cpu":
        raise UsageError(
            "gpus",
            found=f"{spec.gpus} and vLLM {installed.version} built for processors",
            expected="a build for GPUs",
            hint="`qwharf engine install vllm` where the GPU is seen, or plan with `--no-gpu`",
        )
    if spec.gpus:
        return
    if installed.variant not in ("cpu", "unknown"):
        raise UsageError(
            "gpus",
            found=f"none, and vLLM {installed.version} built for {installed.variant}",
            expected="a GPU, or the build for processors",
            hint="install the one for processors: `qwharf engine install vllm --cpu`",
        )
    if spec.format.quantization == "fp8" and not _has_amx():
        raise FormatUnavailable(
            spec.name,
            found="a processor without AMX, for weights in blocks of 8-bit floats",
            expected="safetensors:bf16, w8a8, fp8-channel, w4a16, awq or gptq-int4 on this one",
            hint="convert it: `qwharf convert MODEL --to fp8-channel`",
        )
    if spec.kv_cache_type == "fp8":
        raise UsageError(
            "kv_cache_type",
            found="fp8 on a processor",
            expected="16 bits there",
            hint="choose --kv-cache bf16",
        )


def _has_amx() -> bool:
    """Whether the processor multiplies in tiles, which vLLM's block FP8 kernel needs."""
    with contextlib.suppress(OSError):
        return "amx_tile" in Path("/proc/cpuinfo").read_text("utf-8", "replace")
    return False
