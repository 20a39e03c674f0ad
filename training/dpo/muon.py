"""Muon for the hidden matrices of a small model: momentum, then the nearest orthogonal matrix as the step.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Why not AdamW or `torch.optim.Muon`:
docs/adr/0005. Matrices of one shape are orthogonalised as one batch in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the paper
ROUNDS = 5


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not read by mypy
    """For two-dimensional parameters only; embeddings, norms and output heads belong to AdamW."""

    def __init__(
        self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                alike: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
                for parameter in group["params"]:
                    alike[parameter.shape].append(parameter)
                for parameters in alike.values():
                    self._update(parameters, group)

    def _update(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        directions = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]))
        rows, columns = parameters[0].shape
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)

    def _momentum(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        gradient = parameter.grad
        assert gradient is not None
        average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)  # Nesterov's look ahead


def orthogonal(batch: torch.Tensor) -> torch.Tensor:
    """Nearly orthogonal matrices near those of a batch (n, rows, columns): singular values all go to about one."""
    a, b, c = NEWTON_SCHULZ
    wide = batch if batch.shape[1] <= batch.shape[2] else batch.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    result: torch.Tensor = x if batch.shape[1] <= batch.shape[2] else x.mT
    return result
