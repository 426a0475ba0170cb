"""What a calibration holds at once: arithmetic from the model's shape and the number of tokens.

It does not depend on how many layers there are. Held are: the interpreter with its libraries; the
embedding; one decoder layer and a working copy of its matrices; for GPTQ, how the inputs of each
of them vary together (a square matrix of float32 for each), and three more while the largest is
inverted; and what flows between and within layers, for every token of the text. In mixtures of
experts every expert of a layer is there, and every expert reads every token.
"""

from __future__ import annotations

import math

from qwharf.calibration.methods import Method
from qwharf.formats.tensors import TensorSpec, checkpoint_tensors
from qwharf.types import Architecture

BASE_BYTES = 1_000_000_000
"""Python, torch, transformers and llm-compressor, before the first weight."""
SIZE = 4
"""All is computed in float32."""
MASK_BYTES = 512 * 4
"""Of each token's row of a mask, which the sequences of a text have one by one."""


def fixed_bytes(arch: Architecture, method: Method) -> int:
    """Held whatever the length of the text."""
    specs = layer(arch)
    weights = sum(s.elements for s in specs) * SIZE
    matrices = [s.shape for s in specs if s.role in ("attention", "ffn", "expert")]
    embedding = arch.vocab_size * arch.hidden_size * (SIZE + 2)  # as stored, while it is loaded
    held = BASE_BYTES + embedding + weights
    if method.name == "awq":
        groups = [s.elements for s in specs if s.role in ("ffn", "expert", "attention")]
        return held + sum(groups) * SIZE
    squares = [columns**2 * 4 for _, columns in matrices]
    return held + sum(squares) + 3 * max(squares) + 3 * 4 * max(map(math.prod, matrices))


def token_bytes(arch: Architecture, method: Method) -> int:
    """Held for each token of the text."""
    hidden, heads = arch.hidden_size, arch.num_attention_heads * arch.head_dim
    flows = 2 * hidden + 2 * arch.head_dim  # into and out of a layer, and positions
    if method.name == "awq":  # keeps what enters attention, its output, the layer's second half
        inner = arch.moe_intermediate_size * arch.num_experts or arch.intermediate_size
        flows += 5 * hidden + heads + inner + 2 * hidden
    return flows * SIZE + MASK_BYTES


def needed_bytes(arch: Architecture, method: Method, tokens: int) -> int:
    """For a text of so many tokens."""
    return fixed_bytes(arch, method) + tokens * token_bytes(arch, method)


def layer(arch: Architecture) -> list[TensorSpec]:
    """The tensors of one decoder layer; all are alike."""
    return [s for s in checkpoint_tensors(arch) if s.name.startswith("model.layers.0.")]
