"""What ``vllm serve`` is told, by version.

Sources: vLLM 0.32.0 (its options read by its own parser in the tests, and run), 0.12.0, 0.16.0,
0.20.2 and 0.26.0 (which options they have, read in ``entrypoints/openai/cli_args.py``,
``engine/arg_utils.py`` and ``v1/worker/cpu_worker.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from qwharf.platforms.checkpoints import experts_apart, largest_rank, usual_group
from qwharf.platforms.isolated import OFFLINE, Version, bare_sampling
from qwharf.platforms.yarn import trained_context, yarn_factor
from qwharf.types import DeploymentSpec

HOST = "127.0.0.1"
LEAST = "0.12.0"
"""The first with ``rope_parameters``, in which YaRN is told here."""
CHAT_DEFAULTS = ACCESS_LOG = (0, 16)
CPU_CACHE_BYTES = (0, 20)
"""Since when ``--kv-cache-memory-bytes`` counts on a processor, too; before, whole GiB in the
environment."""

GRAMMARS = {"backend": "guidance", "disable_any_whitespace": True}
"""Between the parts of JSON a model may write white space to its limit: none is let in. Of the two
backends that can keep it out, this one knows all that the other does."""
KV_CACHE_TYPES: Mapping[str, str] = {"bf16": "auto", "f16": "auto", "fp8": "fp8"}
"""In 16 bits the cache has the type of the weights: another would be converted at every step."""
UTILIZATION = 0.92
"""Of each GPU's memory: what plans reckon with; the default before 0.20 was less."""
CPU_BLOCK_TOKENS = 128
SPARE_BLOCKS = 2
"""One that vLLM keeps empty, and one for rounding."""
REASONING = {"hybrid": "qwen3", "thinking": "qwen3", "instruct": None}
"""``qwen3`` takes text for reasoning until the closing tag, so Instruct models, which have none,
must go without."""
TOOLS = "hermes"
"""The JSON form that all general Qwen3 models write; ``qwen3_coder`` is another."""


def environment(spec: DeploymentSpec, version: Version) -> dict[str, str]:
    """Variables to set for ``spec``."""
    env = {**OFFLINE, "VLLM_NO_USAGE_STATS": "1"}
    if not spec.gpus:
        # Bound threads would sit on the same cores in every deployment; and threads that wait by
        # spinning starve each other beside anything else that runs.
        env |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "passive"}
        # Eager alone leaves functions beside the model that are compiled at their first use, such
        # as the ranks of log probabilities: a C++ compiler is needed, and all requests wait for it.
        env["TORCH_COMPILE_DISABLE"] = "1"
        if spec.threads is not None:
            env["OMP_NUM_THREADS"] = str(spec.threads)
        if version < CPU_CACHE_BYTES:
            env["VLLM_CPU_KVCACHE_SPACE"] = str(-(-cpu_cache_bytes(spec) // 2**30))
    return env


def arguments(spec: DeploymentSpec, port: int, version: Version) -> list[str]:
    """The words after ``vllm``."""
    return [
        "serve",
        str(spec.artifact_path),
        *("--served-model-name", spec.name),
        *("--host", HOST),
        *("--port", str(port)),
        *("--max-model-len", str(spec.context_tokens)),
        *("--max-num-seqs", str(spec.parallel)),
        *_parsers(spec),
        *("--structured-outputs-config", json.dumps(GRAMMARS)),
        *_defaults(spec, version),
        *_stretched(spec),
        *_placed(spec, version),
        *_adapters(spec),
        *_quiet(version),
    ]


def _parsers(spec: DeploymentSpec) -> Iterator[str]:
    reasoning = REASONING[spec.thinking]
    if reasoning is not None:
        yield from ("--reasoning-parser", reasoning)
    yield from ("--enable-auto-tool-choice", "--tool-call-parser", TOOLS)


def _defaults(spec: DeploymentSpec, version: Version) -> Iterator[str]:
    """For clients that come past the gateway, which always says what it wants."""
    yield from ("--generation-config", "auto")  # the folder's: its end tokens are needed
    sampling = bare_sampling(spec)
    if sampling is not None:
        values = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
        }
        yield from ("--override-generation-config", json.dumps(values))
    if spec.thinking == "hybrid" and version >= CHAT_DEFAULTS:
        yield from ("--default-chat-template-kwargs", json.dumps({"enable_thinking": True}))


def _stretched(spec: DeploymentSpec) -> Iterator[str]:
    changes = yarn_overrides(spec)
    if changes is not None:
        yield from ("--hf-overrides", json.dumps(changes))


def yarn_overrides(spec: DeploymentSpec) -> dict[str, Any] | None:
    """What to change in ``config.json`` for the asked context; ``None``: nothing.

    ``rope_parameters`` replaces the file's wholesale, so ``rope_theta`` must be in it; and vLLM
    does not reckon the longer context from the factor, so it must be told.
    """
    factor = yarn_factor(spec.architecture, spec.context_tokens)
    if factor is None:
        return None
    trained = trained_context(spec.architecture)
    return {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": spec.architecture.rope_theta,
            "factor": float(factor),
            "original_max_position_embeddings": trained,
        },
        "max_position_embeddings": trained * factor,
    }


def _placed(spec: DeploymentSpec, version: Version) -> Iterator[str]:
    yield from ("--kv-cache-dtype", KV_CACHE_TYPES.get(spec.kv_cache_type, "auto"))
    if not spec.gpus:
        if version >= CPU_CACHE_BYTES:
            yield from ("--kv-cache-memory-bytes", str(cpu_cache_bytes(spec)))
        # Compiling takes a minute at every change of shape, and saves little on a processor.
        yield "--enforce-eager"
        return
    yield from ("--gpu-memory-utilization", str(UTILIZATION))
    yield from ("--tensor-parallel-size", str(spec.gpus))
    if experts_apart(spec.architecture, spec.gpus, usual_group(spec)):
        yield "--enable-expert-parallel"


def cpu_cache_bytes(spec: DeploymentSpec) -> int:
    """The KV cache that holds ``spec.parallel`` full contexts, in 16 bits."""
    arch = spec.architecture
    blocks = -(-spec.context_tokens // CPU_BLOCK_TOKENS) * spec.parallel + SPARE_BLOCKS
    per_token = 2 * arch.num_hidden_layers * arch.num_key_value_heads * arch.head_dim * 2
    return blocks * CPU_BLOCK_TOKENS * per_token


def _adapters(spec: DeploymentSpec) -> Iterator[str]:
    if spec.adapters:
        yield from ("--enable-lora", "--max-lora-rank", str(largest_rank(spec)))
        yield from ("--max-loras", str(len(spec.adapters)), "--lora-modules")
        for name, folder in spec.adapters.items():
            yield json.dumps({"name": name, "path": str(folder), "base_model_name": spec.name})


def _quiet(version: Version) -> Iterator[str]:
    yield from ("--allowed-origins", '["http://qwharf.invalid"]')  # no web page may talk to it
    yield "--disable-fastapi-docs"
    if version >= ACCESS_LOG:  # asked often by the daemon
        yield from ("--disable-access-log-for-endpoints", "/health,/metrics")
