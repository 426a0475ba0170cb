"""Names, shapes and counts of tensors."""

from __future__ import annotations

import pytest

from qwharf import catalog
from qwharf.formats.tensors import (
    active_parameter_count,
    checkpoint_tensors,
    expert_parameter_count,
    gguf_name,
    gguf_tensors,
    non_embedding_parameter_count,
    parameter_count,
)

COUNTS = {  # all parameters, without embeddings, GGUF tensors
    "qwen3:0.6b": (596_049_920, 440_467_456, 310),
    "qwen3:1.7b": (1_720_574_976, 1_409_410_048, 310),
    "qwen3:4b": (4_022_468_096, 3_633_511_936, 398),
    "qwen3:8b": (8_190_735_360, 6_946_075_648, 399),
    "qwen3:14b": (14_768_307_200, 13_212_482_560, 443),
    "qwen3:32b": (32_762_123_264, 31_206_298_624, 707),
    "qwen3:30b-a3b": (30_532_122_624, 29_909_792_768, 579),
    "qwen3:235b-a22b": (235_093_634_560, 233_848_974_848, 1131),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    arch = catalog.resolve(name).model.architecture
    tensors = gguf_tensors(arch)
    found = (parameter_count(arch), non_embedding_parameter_count(arch), len(tensors))
    assert found == COUNTS[name]
    assert sum(t.elements for t in tensors) == COUNTS[name][0]
    if not arch.is_moe:
        assert active_parameter_count(arch) == COUNTS[name][0]


def test_experts() -> None:
    a30 = catalog.resolve("qwen3:30b-a3b").model.architecture
    a235 = catalog.resolve("qwen3:235b-a22b").model.architecture
    assert active_parameter_count(a30) == 3_353_032_704
    assert active_parameter_count(a235) == 22_190_763_520
    assert expert_parameter_count(a30) == 28_991_029_248
    assert expert_parameter_count(a235) == 227_096_395_776
    assert len(checkpoint_tensors(a30)) == 3 + 48 * (9 + 3 * 128)


def test_names() -> None:
    assert gguf_name("model.embed_tokens.weight") == "token_embd.weight"
    assert gguf_name("model.layers.7.self_attn.q_norm.weight") == "blk.7.attn_q_norm.weight"
    assert gguf_name("model.layers.7.mlp.gate.weight") == "blk.7.ffn_gate_inp.weight"
    assert gguf_name("model.layers.7.mlp.gate_proj.weight") == "blk.7.ffn_gate.weight"
    name = "model.layers.7.mlp.experts.99.down_proj.weight"
    assert gguf_name(name) == "blk.7.ffn_down_exps.weight"
    for other in ("", "model.layers.x.mlp.gate.weight", "model.layers.0.mlp.gate.bias", "visual.a"):
        assert gguf_name(other) is None


def test_the_published_small_models_store_their_head() -> None:
    arch = catalog.resolve("qwen3:0.6b").model.architecture
    stored = checkpoint_tensors(arch, lm_head=True)
    assert stored[-1].name == "lm_head.weight"
    assert sum(t.elements for t in stored) == 751_632_384
    assert "output.weight" not in {t.name for t in gguf_tensors(arch)}


def test_the_order_is_that_of_layers_then_names() -> None:
    names = [t.name for t in gguf_tensors(catalog.resolve("qwen3:8b").model.architecture)]
    assert names[:4] == [
        "output.weight",
        "output_norm.weight",
        "token_embd.weight",
        "blk.0.attn_k.weight",
    ]
    layers = [int(n.split(".")[1]) for n in names[3:]]
    assert layers == sorted(layers) and layers[-1] == 35
