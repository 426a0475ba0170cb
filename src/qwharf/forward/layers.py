"""One pass through a model, layer after layer: all chunks go through a layer before the next.

So each weight is read once for all chunks of a pass, and only half a layer of weights (attention,
or the dense feed-forward part; of a mixture, one expert) is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qwharf.errors import InvalidFile
from qwharf.formats.tensors import gguf_name
from qwharf.forward.arithmetic import attention, gated, rms_norm, rotate, rotation, route
from qwharf.forward.weights import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

Tap = Callable[[Sequence[str], "F32", int | None], None]
"""Sees the inputs of matrices: their GGUF names, [tokens, columns], and which expert's, if any."""

SHARED_INPUT = ("q_proj", "k_proj", "v_proj")


def _no_tap(names: Sequence[str], inputs: F32, expert: int | None) -> None:
    pass


def run(weights: Weights, chunks: Sequence[Sequence[int]], tap: Tap | None = None) -> list[F32]:
    """What enters the output matrix, [tokens, hidden], for each chunk of token ids.

    Args:
        weights: the model.
        chunks: each begins at position 0 and sees nothing of the others.
        tap: called with what enters each matrix of a layer.

    Raises:
        InvalidFile: a weight file is damaged, or values that are not finite appear.
    """
    return _Pass(weights, tap or _no_tap).run(chunks)


class _Pass:
    def __init__(self, weights: Weights, tap: Tap) -> None:
        self.weights = weights
        self.arch = weights.arch
        self.tap = tap

    def run(self, chunks: Sequence[Sequence[int]]) -> list[F32]:
        longest = max((len(c) for c in chunks), default=0)
        self.rotation = rotation(self.arch, longest)
        hidden = self._embedded(chunks)
        for layer in range(self.arch.num_hidden_layers):
            at = f"model.layers.{layer}."
            self._attend(at + "self_attn.", at + "input_layernorm.weight", hidden)
            feed = self._mixture if self.arch.is_moe else self._feed
            feed(at + "mlp.", at + "post_attention_layernorm.weight", hidden)
            self._check(layer, hidden)
        norm = self.weights.vector("model.norm.weight")
        return [self._normed(h, norm) for h in hidden]

    def _embedded(self, chunks: Sequence[Sequence[int]]) -> list[F32]:
        ids = np.array([t for c in chunks for t in c], np.intp)
        rows = self.weights.rows("model.embed_tokens.weight", ids)
        ends = np.cumsum([len(c) for c in chunks])
        return np.split(rows, ends[:-1])

    def _normed(self, x: F32, weight: F32) -> F32:
        return rms_norm(x, weight, self.arch.rms_norm_eps)

    def _seen(self, names: Sequence[str], inputs: F32, expert: int | None = None) -> None:
        self.tap([gguf_name(f"{n}.weight") or n for n in names], inputs, expert)

    # ------------------------------------------------------------------------------ attention

    def _attend(self, at: str, norm_name: str, hidden: list[F32]) -> None:
        read = self.weights
        norm = read.vector(norm_name)
        query, key, value = (read.matrix(f"{at}{name}.weight") for name in SHARED_INPUT)
        output = read.matrix(at + "o_proj.weight")
        query_norm = read.vector(at + "q_norm.weight")
        key_norm = read.vector(at + "k_norm.weight")
        for h in hidden:
            x = self._normed(h, norm)
            self._seen([at + name for name in SHARED_INPUT], x)
            mixed = attention(
                self._turned(x @ query.T, query_norm),
                self._turned(x @ key.T, key_norm),
                self._heads(x @ value.T),
            )
            self._seen([at + "o_proj"], mixed)
            h += mixed @ output.T

    def _heads(self, flat: F32) -> F32:
        return flat.reshape(len(flat), -1, self.arch.head_dim)

    def _turned(self, flat: F32, norm: F32) -> F32:
        cosines, sines = (table[: len(flat)] for table in self.rotation)
        return rotate(self._normed(self._heads(flat), norm), cosines, sines)

    # --------------------------------------------------------------------------- feed-forward

    def _feed(self, at: str, norm_name: str, hidden: list[F32]) -> None:
        norm = self.weights.vector(norm_name)
        matrices = self._three(at)
        for h in hidden:
            h += self._through(at, matrices, self._normed(h, norm))

    def _three(self, at: str) -> tuple[F32, F32, F32]:
        gate, up, down = (
            self.weights.matrix(f"{at}{kind}_proj.weight") for kind in ("gate", "up", "down")
        )
        return gate, up, down

    def _through(
        self, at: str, matrices: tuple[F32, F32, F32], x: F32, expert: int | None = None
    ) -> F32:
        gate, up, down = matrices
        self._seen([at + "gate_proj", at + "up_proj"], x, expert)
        inner = gated(x @ gate.T, x @ up.T)
        self._seen([at + "down_proj"], inner, expert)
        return inner @ down.T

    def _mixture(self, at: str, norm_name: str, hidden: list[F32]) -> None:
        norm = self.weights.vector(norm_name)
        router = self.weights.matrix(at + "gate.weight")
        x = np.concatenate([self._normed(h, norm) for h in hidden])
        self._seen([at + "gate"], x)
        best, shares = route(x @ router.T, self.arch.num_experts_per_tok)
        total = np.zeros_like(x)
        for expert in range(self.arch.num_experts):
            name = f"{at}experts.{expert}."
            matrices = self._three(name)
            tokens, rank = np.nonzero(best == expert)
            if len(tokens):
                made = self._through(name, matrices, x[tokens], expert)
                total[tokens] += made * shares[tokens, rank, None]
        ends = np.cumsum([len(h) for h in hidden])
        for h, part in zip(hidden, np.split(total, ends[:-1]), strict=True):
            h += part

    # --------------------------------------------------------------------------------- checks

    def _check(self, layer: int, hidden: list[F32]) -> None:
        if all(np.isfinite(h).all() for h in hidden):
            return
        raise InvalidFile(
            str(self.weights.path),
            found=f"values that are not finite (NaN or infinite) after layer {layer}",
            expected="finite weights that give finite values",
            hint="the weights are damaged or their training diverged; get them again",
            layer=layer,
        )
