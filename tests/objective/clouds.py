"""Token clouds that the transport tests share, and a loss with both its gradients."""

import torch
from torch import Tensor

from slam_potsa.objective.transport import transport_loss

EXACT = {"max_iterations": 20_000, "tolerance": 1e-13}


def tokens(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y[None]).square().sum(-1)


def gradients(x: Tensor, y: Tensor, *masks, **options) -> tuple[Tensor, Tensor, Tensor]:
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = transport_loss(x, y, *masks, **options)
    value.sum().backward()
    return value.detach(), x.grad, y.grad


CLOUDS = {
    "random": (tokens(9, 5), tokens(7, 5, seed=1)),
    "permuted": (tokens(12, 5), tokens(12, 5).flip(0) + 0.6 * tokens(12, 5, seed=2)),
    "one token": (tokens(1, 5), tokens(6, 5, seed=1)),
    "one each": (tokens(1, 5), tokens(1, 5, seed=1)),
    "repeated tokens": (tokens(2, 5).repeat(3, 1), tokens(2, 5).repeat(2, 1)),
    "identical": (tokens(8, 5), tokens(8, 5)),
    "far apart": (tokens(8, 5), tokens(8, 5, seed=1) + 50),
}
