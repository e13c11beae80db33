"""Muon: momentum whose kernels are made orthogonal, so that every direction of a layer learns equally fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.AdamW):
    """Muon (Jordan 2024) on the convolutions' kernels, AdamW on all else, both with the learning rate of AdamW.

    A kernel (out, in, *k) is a matrix (out, in * k). Its step is `0.2 sqrt(max(out, in k))` times the orthogonal
    factor of Nesterov's momentum, which gives it the size of AdamW's (Liu 2025, eq. 4). Depthwise kernels and
    matrices of linear layers stay with AdamW: their rows are not mixtures of one another.
    """

    def __init__(self, weights: nn.Module, *, lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        parameters = list(weights.parameters())
        kernels = [p for p in parameters if p.ndim > 2 and p.shape[1] > 1]
        mine = {id(p) for p in kernels}
        groups: list[dict[str, Any]] = [
            {"params": kernels, "weight_decay": weight_decay, "orthogonal": True},
            {"params": [p for p in parameters if p.ndim > 1 and id(p) not in mine], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        super().__init__(groups, lr=lr)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            if not group.get("orthogonal"):
                continue
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad.flatten(1)
                state = self.state[p]
                if not state:  # AdamW wants to find its count of steps
                    state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(gradient)
                state["step"] += 1
                mean = state["momentum"].lerp_(gradient, 1 - self.momentum)
                update = orthogonal(gradient.lerp(mean, self.momentum)) * 0.2 * max(mean.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=-group["lr"])
                p.grad = None  # so that AdamW passes it by
        return super().step(closure)


def orthogonal(matrix: Tensor, *, iterations: int = 5) -> Tensor:
    """About `U V'` of `matrix = U S V'` (m, n): all singular values come to lie in 0.7...1.2.

    Newton-Schulz iteration `X <- a X + (b X X' + c (X X')^2) X` with Jordan's (a, b, c), which are steep at 0: few
    products bring up even small singular values, and a step has no need for more exactness.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    if len(x) > x.shape[1]:
        return orthogonal(matrix.T, iterations=iterations).T
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x
