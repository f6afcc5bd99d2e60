"""A network under training with everything that changes it: optimiser, warm-up, clipping, moving average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..recipes import RunConfig
from .average import MovingAverage
from .method import Trained
from .optimizer_state import optimizer_tensors, prepare_adam_state
from .ranks import Ranks
from .sharding import fill_network, shard_network, whole


class UpdatedNetwork:
    """Shards a network, gives it its first weights, and updates it.

    Args:
        trained: The network and its settings; it is sharded in place.
        ranks: Of the run.
        run: Precision, offload, activation checkpointing.
    """

    def __init__(self, trained: Trained, ranks: Ranks, run: RunConfig) -> None:
        self.network: Any = trained.network
        self.config = trained.optimizer
        self.updates = 0
        self.network.train()
        shard_network(self.network, ranks, run, trained=True)
        if trained.weights is not None:
            fill_network(self.network, trained.weights(), torch.device("cpu") if run.offload else ranks.device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.config.learning_rate, betas=self.config.betas,
            weight_decay=self.config.weight_decay,
        )  # fmt: skip
        self.average = MovingAverage(self.network, trained.ema_decay) if trained.ema_decay else None

    def gradient_norm(self) -> float:
        """Clip the gradients; their norm before, over all ranks."""
        return float(whole(nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)))

    def step(self) -> None:
        """Apply the gradients and forget them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (self.updates + 1) / max(1, self.config.warmup))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.average is not None:
            self.average.update()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimiser and average by name, sharded."""
        tensors = {f"weights.{name}": parameter.detach() for name, parameter in self.network.named_parameters()}
        tensors |= optimizer_tensors(self.network, self.optimizer)
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state.items()}
        return tensors

    def expect(self, updates: int) -> None:
        """Prepare to be filled with the `tensors` of a network that was updated so often."""
        self.updates = updates
        if self.average is not None:
            self.average.updates = updates
        # A network that never had a turn has no state yet.
        if updates:
            prepare_adam_state(self.optimizer)
