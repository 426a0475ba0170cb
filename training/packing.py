"""Rows of tokens for training: dialogues with the same start share it.

A row holds groups side by side. Of a group, the common start stands once and each dialogue's rest
is a branch that sees the start and itself only, at the positions that it would have alone. So a
long list of tools is computed once for all questions about it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qwharf.testing.vocabulary import Tokens
from training.dialogue import HISTORY, Dialogue, pieces
from training.limits import allowed
from training.skills import MIX
from training.switches import switched
from training.words import Draw

START = 0
"""The branch number of a common start."""
RANDOM = "random"
"""In a mix: :func:`random_copy`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A batch; all arrays are [rows, length]."""

    ids: NDArray[np.int32]
    positions: NDArray[np.int32]
    groups: NDArray[np.int32]
    """Number of the group; -1 is padding."""
    branches: NDArray[np.int32]
    targets: NDArray[np.int32]
    """The next token where it counts for the loss, else -1."""


@dataclass(frozen=True, slots=True)
class _Encoded:
    ids: list[int]
    learnt: list[bool]


def encode(tokenizer: Tokenizer, dialogues: Sequence[Dialogue]) -> list[_Encoded]:
    """Token ids, and for each whether the model shall learn to say it."""
    split = [pieces(d) for d in dialogues]
    texts = [t for each in split for t, _ in each]
    encoded = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    made = []
    for each in split:
        ids: list[int] = []
        learnt: list[bool] = []
        for _, weight in each:
            part = next(encoded).ids
            ids += part
            mask = [weight != 0.0] * len(part)
            if weight == HISTORY:
                mask[0] = False
            learnt += mask
        made.append(_Encoded(ids, learnt))
    return made


Lane = list[tuple[int, int, int, int]]
"""Per token: id, position, branch, target."""


def shared(encoded: Sequence[_Encoded], length: int) -> Iterator[Lane]:
    """The group as lanes of at most ``length`` tokens, each with the start and some branches."""
    start = _common(encoded) if len(encoded) > 1 else 0
    lane: Lane = []
    branch = START
    for each in encoded:
        rest = len(each.ids) - start
        if start + rest > length:
            continue
        if lane and len(lane) + rest > length:
            yield lane
            lane = []
        if not lane:
            branch = START
            lane = [_token(each, i, START) for i in range(start)]
            if start:  # what follows the start differs from branch to branch
                lane[-1] = (*lane[-1][:3], -1)
        branch += 1
        lane += [_token(each, i, branch) for i in range(start, len(each.ids))]
    if lane:
        yield lane


def _token(each: _Encoded, i: int, branch: int) -> tuple[int, int, int, int]:
    following = i + 1 < len(each.ids) and each.learnt[i + 1]
    return each.ids[i], i, branch, each.ids[i + 1] if following else -1


def _common(encoded: Sequence[_Encoded]) -> int:
    """Length of the common start, which ends before anything that one of them shall say last."""
    first = encoded[0]
    end = min(len(e.ids) for e in encoded) - 1
    n = 0
    while n < end and all(
        e.ids[n] == first.ids[n] and e.learnt[n] == first.learnt[n] for e in encoded
    ):
        n += 1
    # The last shared token must predict nothing that is learnt, so step back to where that holds.
    while n > 0 and any(e.learnt[n] for e in encoded):
        n -= 1
    return n


def pack(lanes: list[Lane], length: int) -> list[list[Lane]]:
    """Put lanes together in rows, first fit, longest first."""
    rows: list[tuple[int, list[Lane]]] = []
    for lane in sorted(lanes, key=len, reverse=True):
        for i, (used, row) in enumerate(rows):
            if used + len(lane) <= length:
                row.append(lane)
                rows[i] = (used + len(lane), row)
                break
        else:
            rows.append((len(lane), [lane]))
    return [row for _, row in rows]


def to_arrays(rows: Sequence[Sequence[Lane]], length: int) -> Rows:
    """Rows of lanes as arrays."""
    shape = (len(rows), length)
    ids, positions, branches = (np.zeros(shape, np.int32) for _ in range(3))
    groups, targets = (np.full(shape, -1, np.int32) for _ in range(2))
    for r, row in enumerate(rows):
        at = 0
        for number, lane in enumerate(row):
            data = np.asarray(lane, np.int32)
            end = at + len(lane)
            ids[r, at:end], positions[r, at:end] = data[:, 0], data[:, 1]
            branches[r, at:end], targets[r, at:end] = data[:, 2], data[:, 3]
            groups[r, at:end] = number
            at = end
    return Rows(ids, positions, groups, branches, targets)


def stream(
    tokenizer: Tokenizer,
    tokens: Tokens,
    seed: int,
    rows: int,
    length: int,
    mix: Mapping[str, float],
) -> Iterator[Rows]:
    """Batches without end."""
    draw = Draw(seed)
    names, weights = list(mix), list(mix.values())
    lanes: list[Lane] = []
    ready: list[list[Lane]] = []
    while True:
        while len(ready) < rows:
            for _ in range(24):
                name = draw.rng.choices(names, weights)[0]
                if name == RANDOM:
                    lanes.append(random_copy(draw, tokenizer, len(tokens.pieces)))
                    continue
                dialogues = [d for d in draw_group(draw, name) if allowed(d)]
                if dialogues:
                    lanes += shared(encode(tokenizer, dialogues), length)
            packed = pack(lanes, length)
            # The emptier half waits for lanes that fit.
            full = [r for r in packed if sum(map(len, r)) > 0.93 * length]
            lanes = [lane for r in packed if sum(map(len, r)) <= 0.93 * length for lane in r]
            if len(lanes) > 300:
                full, lanes = packed, []
            ready += full
            random.Random(draw.rng.random()).shuffle(ready)
        yield to_arrays(ready[:rows], length)
        ready = ready[rows:]


def draw_group(draw: Draw, name: str) -> list[Dialogue]:
    """Dialogues of one skill with a common start, switched."""
    return [switched(draw, d) for d in MIX[name][0](draw)]


def random_copy(draw: Draw, tokenizer: Tokenizer, vocabulary: int) -> Lane:
    """Random tokens, said twice: the plainest exercise in copying, over the whole vocabulary."""
    some = [draw.rng.randrange(vocabulary) for _ in range(draw.whole(4, 24))]
    before, between, end = (
        tokenizer.encode(text).ids
        for text in (
            "<|im_start|>user\nRepeat: ",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            "<|im_end|>",
        )
    )
    ids = [*before, *some, *between, *some, *end]
    first = len(ids) - len(some) - len(end)
    return [
        (token, i, 1, ids[i + 1] if first <= i + 1 < len(ids) else -1)
        for i, token in enumerate(ids)
    ]
