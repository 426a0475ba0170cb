"""The platform ``sglang``: SGLang's server in its own environment, on NVIDIA cards.

What it is told: :mod:`qwharf.platforms.sglang_flags`; what its log says:
:mod:`qwharf.platforms.sglang_log`; what is refused before a start, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qwharf.engines import Installed
from qwharf.errors import FormatUnavailable, InvalidFile, UsageError
from qwharf.formats.adapter import CONFIG
from qwharf.platforms import checkpoints, isolated, sglang_flags, sglang_log
from qwharf.platforms.base import Applied, Availability
from qwharf.types import DeploymentSpec, Format, Launch

ENGINE = isolated.Engine(name="sglang", package="sglang", least=sglang_flags.LEAST, latest="0.5.23")
SERVER = "sglang.launch_server"
NOT_GGUF = "use `--platform llama.cpp` for GGUF files, or `--format safetensors:bf16`"


class Sglang:
    """The platform ``sglang``."""

    name = "sglang"

    def engine(self) -> str:
        """Name and version, e.g. ``sglang 0.5.23``."""
        return ENGINE.text()

    def availability(self) -> Availability:
        """Whether SGLang is in an environment of ours, or of the machine's."""
        return ENGINE.availability()

    def formats(self) -> tuple[Format, ...]:
        """Safetensors, plain and quantised; which of them this machine can run, :meth:`check`
        tells.
        """
        return checkpoints.SAFETENSORS

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what SGLang would refuse or die of."""
        installed = ENGINE.require(spec)
        checkpoints.check_format(spec, checkpoints.SAFETENSORS, NOT_GGUF)
        checkpoints.check_numbers(spec, tuple(sglang_flags.KV_CACHE_TYPES))
        _check_device(spec, installed)
        checkpoint = checkpoints.check_folder(spec)
        checkpoints.check_split(spec, checkpoints.group_of(checkpoint.config, spec))
        for adapter in checkpoints.check_adapters(spec):
            if adapter.rank_stabilized:
                raise InvalidFile(
                    str(adapter.folder / CONFIG),
                    found="use_rslora = true",
                    expected="alpha over the rank: SGLang scales all adapters by that",
                    hint="use `--platform vllm`, or merge it into the weights",
                )

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """``python -m sglang.launch_server`` with what ``spec`` leads to."""
        options = sglang_flags.arguments(spec, port, ENGINE.version(spec))
        return Launch(
            argv=(ENGINE.python(spec), "-m", SERVER, *options),
            env=sglang_flags.environment(spec),
            base_url=f"http://{sglang_flags.HOST}:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        """What begins with this line of the log."""
        return sglang_log.phase(log_line)

    def applied(self, log: Iterable[str]) -> Applied:
        """What the latest start took."""
        return sglang_log.applied(log)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the latest start failed, or the engine died."""
        return sglang_log.explain(log, exit_code)


def _check_device(spec: DeploymentSpec, installed: Installed) -> None:
    """On a processor only plain weights without adapters were seen to run, and only in an
    installation that says it is made for one.
    """
    if spec.gpus:
        return
    if installed.variant != "cpu":
        raise UsageError(
            "gpus",
            found="none",
            expected="an NVIDIA GPU: SGLang's kernels for processors are in no package index",
            hint="use `--platform vllm` or `--platform llama.cpp` on a processor",
        )
    if spec.format.quantization not in checkpoints.PLAIN:
        raise FormatUnavailable(
            spec.name,
            found=f"{spec.format} on a processor",
            expected="safetensors:bf16 there",
            hint="use `--platform vllm`, which runs it",
        )
    if spec.adapters or spec.kv_cache_type == "fp8":
        raise UsageError(
            "adapters" if spec.adapters else "kv_cache_type",
            found=", ".join(spec.adapters) or spec.kv_cache_type,
            expected="none, and a 16-bit cache, on a processor",
            hint="use `--platform vllm`",
        )
