"""Muon in single precision: torch's own works in bf16, which this kind of CPU has no units for."""

from __future__ import annotations

from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.775, 2.0315)
STEPS = 5


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum, made orthogonal, scaled to AdamW's usual size of step (0.2 times the rate)."""

    def __init__(self, parameters: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """One step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                held = self.state[parameter]
                if "momentum" not in held:
                    held["momentum"] = torch.zeros_like(parameter)
                held["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(held["momentum"], group["momentum"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                size = 0.2 * max(parameter.shape) ** 0.5
                parameter.add_(orthogonal(update), alpha=-group["lr"] * size)


def orthogonal(matrix: Any) -> Any:
    """A matrix near the nearest orthogonal one, by the quintic Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
