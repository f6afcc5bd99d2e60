"""A moving average of a network's weights, sharded as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sharding import local

_WARM_UP = 10


class MovingAverage:
    """Exponential moving average of parameters, float32.

    Args:
        network: Averaged from now on.
        decay: Share of the old average that stays per update; smaller during the first updates.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._parameters = dict(network.named_parameters())
        self.state: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.updates += 1
        weight = 1 - min(self.decay, self.updates / (self.updates + _WARM_UP))
        mine = [local(value) for value in self.state.values()]
        torch._foreach_lerp_(mine, [local(p.detach()) for p in self._parameters.values()], weight)
