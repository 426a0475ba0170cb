"""The platform ``mlx``: mlx-lm's server in its own environment, on Apple silicon or a processor.

The child is :mod:`qwharf.platforms.mlx_server`, which says why ``mlx_lm.server`` alone will not do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from qwharf.errors import UsageError
from qwharf.formats.names import FORMATS
from qwharf.platforms import checkpoints, isolated, python_log, wishes
from qwharf.platforms.base import Applied, Availability
from qwharf.platforms.phases import begun
from qwharf.platforms.yarn import trained_context, yarn_factor
from qwharf.types import DeploymentSpec, Format, Launch

CHILD = Path(__file__).with_name("mlx_server.py")
ENGINE = isolated.Engine(name="mlx", package="mlx-lm", least="0.32", latest="0.32.2")
HOST = "127.0.0.1"
KV_BITS = {"bf16": None, "f16": None, "q8_0": 8, "q4_0": 4}
"""By the type of the cache; in 16 bits it has the type of the weights. MLX's own 8 and 4 bits have
a scale and a bias for 64 values, which take what llama.cpp's q8_0 and q4_0 take."""
KV_GROUP = 64
PROMPTS_AT_ONCE = 8
"""mlx-lm's default."""
CPU_STEP_TOKENS = 256
"""Of a prompt at a time on a processor: only between two steps do others get on with their answers,
and is it seen that a client has gone. mlx-lm's 2,048 take half a minute there."""


class Mlx:
    """The platform ``mlx``."""

    name = "mlx"

    def engine(self) -> str:
        """Name and version, e.g. ``mlx-lm 0.32.2``."""
        return ENGINE.text()

    def availability(self) -> Availability:
        """Whether mlx-lm is in an environment of ours, or of the machine's."""
        return ENGINE.availability()

    def formats(self) -> tuple[Format, ...]:
        """Every MLX one, and plain checkpoints of 16 or 32 bits, which it reads as they are."""
        plain = [Format("safetensors", q) for q in checkpoints.PLAIN]
        return (*(f for f in FORMATS if f.container == "mlx"), *plain)

    def check(self, spec: DeploymentSpec) -> None:
        """Refuse what mlx-lm would refuse or die of."""
        ENGINE.require(spec)
        checkpoints.check_format(
            spec, self.formats(), "convert it: `qwharf convert MODEL --to mlx:4bit`"
        )
        checkpoints.check_numbers(spec, tuple(KV_BITS))
        bits = KV_BITS[spec.kv_cache_type]
        if bits is not None and spec.parallel > 1:
            raise UsageError(
                "parallel",
                found=f"{spec.parallel} with a cache of {bits} bits",
                expected="1: mlx-lm serves one request at a time with a quantised cache",
                hint="choose --kv-cache bf16 or --parallel 1",
            )
        if bits is not None and spec.architecture.head_dim % KV_GROUP:
            raise UsageError(
                "kv_cache_type",
                found=f"{spec.kv_cache_type} with heads of {spec.architecture.head_dim}",
                expected=f"heads of a multiple of {KV_GROUP} for a quantised cache",
                hint="choose --kv-cache bf16",
            )
        if spec.gpus > 1:
            raise UsageError(
                "gpus",
                found=str(spec.gpus),
                expected="at most 1: MLX uses the one GPU of its machine",
                hint="leave it out",
            )
        wishes.refuse_adapters(spec)
        checkpoints.check_folder(spec)

    def launch(self, spec: DeploymentSpec, port: int) -> Launch:
        """The child's command."""
        return Launch(
            argv=(ENGINE.python(spec), "-I", str(CHILD), *arguments(spec, port)),
            env=isolated.OFFLINE,
            base_url=f"http://{HOST}:{port}",
        )

    def phase(self, log_line: str) -> str | None:
        """What begins with this line of the log."""
        return begun(_PHASES, log_line)

    def applied(self, log: Iterable[str]) -> Applied:
        """What the latest start took. MLX allocates its cache as it goes, so none is told."""
        weights = context = None
        for line in log:
            if START in line:
                weights = context = None
            if found := _WEIGHTS.search(line):
                weights = int(found[1])
            if found := _CONTEXT.search(line):
                context = int(found[1])
        lines = {} if weights is None else {"weights": weights}
        return Applied(weights_bytes=weights, context_tokens=context, lines=lines)

    def explain(self, log: Sequence[str], exit_code: int | None) -> str:
        """Why the latest start failed, or the engine died."""
        return python_log.explain(log, exit_code, start=START, phase=self.phase)


START = "qwharf-engine: starting"
_PHASES = (
    ("Starting httpd at", "ready"),
    ("qwharf-engine: loading the model", "loading weights"),
    (START, "starting the engine"),
)
_WEIGHTS = re.compile(r"qwharf-engine: weights take (\d+) bytes")
_CONTEXT = re.compile(r"qwharf-engine: context of (\d+) tokens")


def arguments(spec: DeploymentSpec, port: int) -> list[str]:
    """The child's options: its own first, then mlx_lm.server's."""
    arch = spec.architecture
    argv = ["--alias", spec.name, "--context-length", str(spec.context_tokens)]
    factor = yarn_factor(arch, spec.context_tokens)
    if factor is not None:
        scaling = {
            "rope_type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": trained_context(arch),
        }
        argv += ["--rope-scaling", json.dumps(scaling)]
    if not spec.gpus:
        argv += ["--cpu", "--prefill-step-size", str(CPU_STEP_TOKENS)]
    argv += [
        "--die-with-parent",
        *("--model", str(spec.artifact_path)),
        *("--host", HOST),
        *("--port", str(port)),
        *("--allowed-origins", "http://qwharf.invalid"),  # no web page may talk to it
        *("--decode-concurrency", str(spec.parallel)),
        *("--prompt-concurrency", str(min(spec.parallel, PROMPTS_AT_ONCE))),
    ]
    bits = KV_BITS.get(spec.kv_cache_type)
    if bits is not None:
        argv += ["--kv-bits", str(bits), "--kv-group-size", str(KV_GROUP)]
        argv += ["--quantized-kv-start", "0"]
    # Prompts kept for later share what was planned for the requests at work.
    argv += ["--prompt-cache-bytes", str(_cache_bytes(spec))]
    if spec.thinking == "hybrid":
        argv += ["--chat-template-args", '{"enable_thinking": true}']
    sampling = isolated.bare_sampling(spec)
    if sampling is not None:
        argv += ["--temp", str(sampling.temperature), "--top-p", str(sampling.top_p)]
        argv += ["--top-k", str(sampling.top_k), "--min-p", str(sampling.min_p)]
    most = (sampling.max_output_tokens if sampling else None) or spec.context_tokens
    return [*argv, "--max-tokens", str(min(most, spec.context_tokens))]


def _cache_bytes(spec: DeploymentSpec) -> int:
    arch = spec.architecture
    values = 2 * arch.num_hidden_layers * arch.num_key_value_heads * arch.head_dim
    bits = KV_BITS.get(spec.kv_cache_type)
    of_one = 16 if bits is None else bits + 32 / KV_GROUP
    return int(values * of_one / 8) * spec.context_tokens * spec.parallel
