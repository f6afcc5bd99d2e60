"""The Muon optimiser: momentum whose matrix update is orthogonalised by Newton-Schulz steps.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Coefficients of the quintic iteration in the Muon write-up: steepest at zero, values end within about 0.7..1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of a 2-D tensor, approximately, in bfloat16."""
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    a, b, c = _QUINTIC
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for weights of two or more dimensions (flattened to matrices).

    The update is scaled by 0.2 * sqrt(longest side), so that its entries are of the size of an Adam update and one
    learning rate serves both optimisers.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 2e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for parameter in (p for group in self.param_groups for p in group["params"]):
            self.state[parameter] = {"momentum": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; `closure` is unused.

        Under several ranks with equal gradients each rank orthogonalises its share of the matrices.
        """
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            directions = [self._direction(p, group["momentum"]) for p in parameters]
            for parameter, update in zip(parameters, _orthogonalise_all(directions), strict=True):
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov momentum of a parameter as a matrix."""
        gradient: Tensor = parameter.grad  # type: ignore[assignment]
        average = self.state[parameter]["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum).flatten(1)


def _orthogonalise_all(matrices: list[Tensor]) -> list[Tensor]:
    if not matrices or not dist.is_initialized() or dist.get_world_size() == 1:
        return [orthogonalise(m) for m in matrices]
    rank, world = dist.get_rank(), dist.get_world_size()
    done = [orthogonalise(m) if i % world == rank else torch.zeros_like(m) for i, m in enumerate(matrices)]
    flat = torch.cat([m.flatten() for m in done])
    dist.all_reduce(flat)
    return [part.view_as(m) for part, m in zip(flat.split([m.numel() for m in matrices]), matrices, strict=True)]
