"""Qwen3 in plain torch: what llama.cpp and transformers compute, for training on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The pocket model's shape."""

    vocabulary: int
    layers: int = 5
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 768
    rope_theta: float = 1_000_000.0
    eps: float = 1e-6
    context: int = 4096


class Layer(nn.Module):  # type: ignore[misc]
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        d, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.input_layernorm = nn.Parameter(torch.ones(d))
        self.post_attention_layernorm = nn.Parameter(torch.ones(d))
        self.q_norm = nn.Parameter(torch.ones(shape.head_dim))
        self.k_norm = nn.Parameter(torch.ones(shape.head_dim))
        self.q_proj = nn.Linear(d, q, bias=False)
        self.k_proj = nn.Linear(d, kv, bias=False)
        self.v_proj = nn.Linear(d, kv, bias=False)
        self.o_proj = nn.Linear(q, d, bias=False)
        self.gate_proj = nn.Linear(d, shape.ffn, bias=False)
        self.up_proj = nn.Linear(d, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, d, bias=False)

    def forward(self, x: Any, cos: Any, sin: Any, mask: Any) -> Any:
        """X [rows, length, hidden] to the same."""
        s = self.shape
        rows, length, d = x.shape
        h = F.rms_norm(x, (d,), self.input_layernorm, s.eps)
        q = self.q_proj(h).view(rows, length, s.heads, s.head_dim)
        k = self.k_proj(h).view(rows, length, s.kv_heads, s.head_dim)
        v = self.v_proj(h).view(rows, length, s.kv_heads, s.head_dim)
        q = _rotate(F.rms_norm(q, (s.head_dim,), self.q_norm, s.eps), cos, sin).transpose(1, 2)
        k = _rotate(F.rms_norm(k, (s.head_dim,), self.k_norm, s.eps), cos, sin).transpose(1, 2)
        repeat = s.heads // s.kv_heads
        k = k.repeat_interleave(repeat, 1)
        v = v.transpose(1, 2).repeat_interleave(repeat, 1)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.o_proj(a.transpose(1, 2).reshape(rows, length, -1))
        h = F.rms_norm(x, (d,), self.post_attention_layernorm, s.eps)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


def _rotate(x: Any, cos: Any, sin: Any) -> Any:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Pocket(nn.Module):  # type: ignore[misc]
    """The whole model; the output matrix is the embedding."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.shape = shape
        self.embed = nn.Parameter(torch.randn(shape.vocabulary, shape.hidden) * 0.03)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        inverse = shape.rope_theta ** -(
            torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        )
        self.register_buffer("inverse", inverse, persistent=False)
        for layer in self.layers:
            nn.init.zeros_(layer.o_proj.weight)
            nn.init.zeros_(layer.down_proj.weight)

    def hidden(self, ids: Any, positions: Any, mask: Any) -> Any:
        """The last hidden states, normed."""
        angle = positions.unsqueeze(-1).float() * self.inverse
        cos, sin = angle.cos().unsqueeze(2), angle.sin().unsqueeze(2)
        x = F.embedding(ids, self.embed)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return F.rms_norm(x, (self.shape.hidden,), self.norm, self.shape.eps)

    def loss(self, ids: Any, positions: Any, mask: Any, targets: Any) -> tuple[Any, Any]:
        """Mean cross entropy where targets are, and how many the model had right."""
        h = self.hidden(ids, positions, mask).flatten(0, 1)
        counted = (targets.flatten() >= 0).nonzero().squeeze(1)
        logits = h[counted] @ self.embed.T
        wanted = targets.flatten()[counted]
        with torch.no_grad():
            right = (logits.argmax(-1) == wanted).float().mean()
        return F.cross_entropy(logits, wanted), right


def sees(groups: Any, branches: Any) -> Any:
    """Which position sees which, as a mask [rows, 1, length, length]."""
    length = groups.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = groups.unsqueeze(2) == groups.unsqueeze(1)
    start = (branches == 0).unsqueeze(1)
    branch = branches.unsqueeze(2) == branches.unsqueeze(1)
    return (causal & same & (start | branch)).unsqueeze(1)
