"""The optimizer: Muon for the weight matrices, AdamW for embeddings and norms, one cosine schedule for both."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, about, by five quintic Newton-Schulz steps (Jordan 2024, "Muon")."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalized: every direction of a matrix moves equally far."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.02) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalize(weight.grad.lerp(average, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.add_(update, alpha=-group["lr"] * max(1, weight.shape[0] / weight.shape[1]) ** 0.5)


def optimizers(model: nn.Module, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Both optimizers, with each group's peak rate kept as `peak_lr`."""
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim == 2 and name.startswith("blk.")]
    others = [weight for name, weight in named if not (weight.ndim == 2 and name.startswith("blk."))]
    result = [
        Muon(matrices, matrix_lr),
        torch.optim.AdamW(others, other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in result:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return result


def set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int, warmup: int = 40) -> None:
    """Linear warm-up, then a cosine down to 2% of the peak."""
    done = step / steps
    factor = min((step + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
