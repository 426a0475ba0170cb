"""What a model takes in memory, in bytes: weights, KV cache, buffers. Arithmetic only.

Nothing here looks at the machine or starts an engine; ``benchmarks/memory.py`` holds the sums
against what the embedded engine says it allocated.
"""

from __future__ import annotations

from qwharf.memory.engines import (
    mlx_lines,
    sglang_cpu_lines,
    sglang_lines,
    vllm_budget_bytes,
    vllm_cpu_lines,
    vllm_lines,
)
from qwharf.memory.kv_cache import kv_bytes, kv_bytes_per_token
from qwharf.memory.llama_cpp import Placement, llama_cpp_lines
from qwharf.memory.weights import (
    active_parameter_count,
    expert_bytes_by_layer,
    layer_bytes,
    parameter_count,
    read_bytes_per_token,
    weight_bytes,
    weight_bytes_of_file,
)

__all__ = [
    "Placement",
    "active_parameter_count",
    "expert_bytes_by_layer",
    "kv_bytes",
    "kv_bytes_per_token",
    "layer_bytes",
    "llama_cpp_lines",
    "mlx_lines",
    "parameter_count",
    "read_bytes_per_token",
    "sglang_cpu_lines",
    "sglang_lines",
    "vllm_budget_bytes",
    "vllm_cpu_lines",
    "vllm_lines",
    "weight_bytes",
    "weight_bytes_of_file",
]
