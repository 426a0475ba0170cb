"""What ``sglang.launch_server`` is told, by version.

Sources: SGLang 0.5.23 (its options read by its own parser in the tests; its server run on a
processor with a stand-in for its kernels), 0.5.3, 0.5.8, 0.5.10, 0.5.15 and 0.5.18 (which options
and names they have, read in ``srt/server_args.py`` and the parsers).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from qwharf.platforms.checkpoints import experts_apart, usual_group
from qwharf.platforms.isolated import OFFLINE, Version
from qwharf.platforms.yarn import trained_context, yarn_factor
from qwharf.types import DeploymentSpec

HOST = "127.0.0.1"
LEAST = "0.5.3"
"""The oldest that was looked at."""
QWEN_TOOLS = SAMPLING_DEFAULTS = (0, 5, 8)
ROPE_PARAMETERS = (0, 5, 10)
"""Since transformers 5, in which the name of ``rope_scaling`` changed."""
CHAT_DEFAULTS = (0, 5, 18)

KV_CACHE_TYPES: Mapping[str, str] = {"bf16": "auto", "f16": "auto", "fp8": "fp8_e4m3"}
"""In 16 bits the cache has the type of the weights."""
REASONING = {"hybrid": "qwen3", "thinking": "qwen3-thinking", "instruct": None}
"""``qwen3-thinking`` takes text for reasoning from the first token on: the template opened it."""


def environment(spec: DeploymentSpec) -> dict[str, str]:
    """Variables to set for ``spec``."""
    env = dict(OFFLINE)
    if not spec.gpus:
        env["SGLANG_USE_CPU_ENGINE"] = "1"
        if spec.threads is not None:
            env["OMP_NUM_THREADS"] = str(spec.threads)
    return env


def arguments(spec: DeploymentSpec, port: int, version: Version) -> list[str]:
    """The words after ``python -m sglang.launch_server``."""
    return [
        *("--model-path", str(spec.artifact_path)),
        *("--served-model-name", spec.name),
        *("--host", HOST),
        *("--port", str(port)),
        *("--context-length", str(spec.context_tokens)),
        *("--max-running-requests", str(spec.parallel)),
        *_parsers(spec, version),
        *_defaults(spec, version),
        *_stretched(spec, version),
        *_placed(spec),
        *_adapters(spec),
    ]


def _parsers(spec: DeploymentSpec, version: Version) -> Iterator[str]:
    reasoning = REASONING[spec.thinking]
    if reasoning is not None:
        yield from ("--reasoning-parser", reasoning)
    yield from ("--tool-call-parser", "qwen" if version >= QWEN_TOOLS else "qwen25")


def _defaults(spec: DeploymentSpec, version: Version) -> Iterator[str]:
    """For clients that come past the gateway: the sampling in the folder's generation_config.json,
    as SGLang takes no other for its OpenAI routes.
    """
    if version >= SAMPLING_DEFAULTS:
        yield from ("--sampling-defaults", "model")
    if spec.thinking == "hybrid" and version >= CHAT_DEFAULTS:
        yield from ("--default-chat-template-kwargs", json.dumps({"enable_thinking": True}))


def _stretched(spec: DeploymentSpec, version: Version) -> Iterator[str]:
    changes = yarn_overrides(spec, version)
    if changes is not None:
        yield from ("--json-model-override-args", json.dumps(changes))


def yarn_overrides(spec: DeploymentSpec, version: Version) -> dict[str, Any] | None:
    """What to change in ``config.json`` for the asked context; ``None``: nothing.

    SGLang reckons with a factor of 1 where the original context is told, so the longer one must be
    told too (``get_context_length``).
    """
    factor = yarn_factor(spec.architecture, spec.context_tokens)
    if factor is None:
        return None
    trained = trained_context(spec.architecture)
    rope: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": trained,
    }
    longer = {"max_position_embeddings": trained * factor}
    if version < ROPE_PARAMETERS:
        return {"rope_scaling": rope, **longer}
    return {"rope_parameters": {"rope_theta": spec.architecture.rope_theta, **rope}, **longer}


def _placed(spec: DeploymentSpec) -> Iterator[str]:
    yield from ("--kv-cache-dtype", KV_CACHE_TYPES.get(spec.kv_cache_type, "auto"))
    if not spec.gpus:
        yield from ("--device", "cpu", "--max-total-tokens", str(cpu_tokens(spec)))
        return
    yield from ("--tp-size", str(spec.gpus))
    if experts_apart(spec.architecture, spec.gpus, usual_group(spec)):
        yield from ("--ep-size", str(spec.gpus))


def cpu_tokens(spec: DeploymentSpec) -> int:
    """What the KV cache must hold: on a processor SGLang would take a share of all memory."""
    return spec.context_tokens * spec.parallel


def _adapters(spec: DeploymentSpec) -> Iterator[str]:
    if spec.adapters:
        # A batch may mix all adapters and the bare model; their ranks SGLang reads itself.
        yield from ("--max-loras-per-batch", str(len(spec.adapters) + 1), "--lora-paths")
        yield from (f"{name}={folder}" for name, folder in spec.adapters.items())
