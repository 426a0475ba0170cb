"""One decoder layer more for a model in training, which computes at first what it did before.

A new layer adds nothing while its two output matrices are zero, as they are before the first step
of any training; so a run can go on with a deeper model and lose nothing it has learnt.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from training.model import Pocket, Shape

_LAYER = re.compile(r"layers\.(\d+)\.(.*)")


def grow(state_file: Path, at: int) -> None:
    """Put a new layer before layer ``at`` of the model in ``state_file``.

    The running average and what the optimisers remember move with their parameters.

    Raises:
        ValueError: the model is not one layer short of :class:`Shape`.
    """
    state = torch.load(state_file, weights_only=True)
    layers = 1 + max(int(m[1]) for n in state["model"] if (m := _LAYER.match(n)))
    shape = Shape(state["model"]["embed"].shape[0])
    if layers + 1 != shape.layers:
        raise ValueError(f"{state_file} holds {layers} layers; {shape.layers - 1} can grow")
    before, after = names(layers), names(shape.layers)
    fresh = dict(Pocket(shape, seed=layers).named_parameters())
    for part in ("model", "average"):
        held = {_moved(n, at): t for n, t in state[part].items()}
        state[part] = {n: held.get(n, fresh[n].detach().clone()) for n in fresh}
    for kind, optimizer in enumerate(state["optimizers"]):
        index = {n: i for i, n in enumerate(after[kind])}
        optimizer["state"] = {
            index[_moved(before[kind][i], at)]: s for i, s in optimizer["state"].items()
        }
        optimizer["param_groups"][0]["params"] = list(range(len(after[kind])))
    torch.save(state, state_file)


def names(layers: int) -> tuple[list[str], list[str]]:
    """The names of what each optimiser moves, in its order: Muon's matrices, AdamW's rest."""
    with torch.device("meta"):
        every: list[tuple[str, Any]] = list(Pocket(Shape(8, layers=layers)).named_parameters())
    matrices = [n for n, p in every if is_matrix(n, p)]
    return matrices, [n for n, p in every if not is_matrix(n, p)]


def is_matrix(name: str, parameter: Any) -> bool:
    """Whether Muon moves a parameter: the matrices, but not the embeddings."""
    return parameter.ndim == 2 and name != "embed"


def _moved(name: str, at: int) -> str:
    found = _LAYER.match(name)
    if found is None or int(found[1]) < at:
        return name
    return f"layers.{int(found[1]) + 1}.{found[2]}"
