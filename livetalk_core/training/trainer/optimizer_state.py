"""The state of optimisers as named tensors, for checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def optimizer_tensors(network: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`optimizer.KIND.NAME` -> what an optimiser remembers of the parameter with that name, sharded as it is."""
    return {
        f"optimizer.{kind}.{name}": value
        for name, parameter in network.named_parameters()
        for optimizer in optimizers
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def prepare_adam_state(optimizer: torch.optim.Optimizer) -> None:
    """Give AdamW the zeros that it would make in its first steps, so that a checkpoint can be read into them."""
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
