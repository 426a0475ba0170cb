"""The eight open Qwen3 shapes, written out from the published configurations."""

from qwharf.types import Architecture


def dense(layers: int, hidden: int, heads: int, ffn: int, tied: bool) -> Architecture:
    return Architecture(
        model_type="qwen3",
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=ffn,
        vocab_size=151_936,
        tie_word_embeddings=tied,
        max_position_embeddings=40_960,
    )


def moe(layers: int, hidden: int, heads: int, ffn: int, expert_ffn: int) -> Architecture:
    return Architecture(
        model_type="qwen3_moe",
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=ffn,
        vocab_size=151_936,
        tie_word_embeddings=False,
        max_position_embeddings=40_960,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=expert_ffn,
    )


QWEN3 = {
    "0.6B": dense(28, 1024, 16, 3_072, True),
    "1.7B": dense(28, 2048, 16, 6_144, True),
    "4B": dense(36, 2560, 32, 9_728, True),
    "8B": dense(36, 4096, 32, 12_288, False),
    "14B": dense(40, 5120, 40, 17_408, False),
    "32B": dense(64, 5120, 64, 25_600, False),
    "30B-A3B": moe(48, 2048, 32, 6_144, 768),
    "235B-A22B": moe(94, 4096, 64, 12_288, 1_536),
}
