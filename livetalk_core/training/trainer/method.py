"""What a training method is: networks, and a step that returns losses and what it made of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from ..recipes import OptimizerConfig

Losses = dict[str, Tensor]
"""Name of a network -> scalar whose gradient updates it. Networks that are not named stand still this time."""

Outputs = dict[str, Tensor]
"""Name -> scalar for the log, without gradient."""


Weights = Callable[[], Iterable[tuple[str, Tensor]]]


@dataclass(frozen=True)
class Trained:
    """A network under training.

    Attributes:
        network: Float32 weights; sharded by the trainer before its first use.
        optimizer: How it is updated.
        ema_decay: Of a moving average of its weights; 0: none.
        weights: Streams its first weights by parameter name, where it lies on the meta device.
    """

    network: nn.Module
    optimizer: OptimizerConfig
    ema_decay: float = 0.0
    weights: Weights | None = None


@dataclass(frozen=True)
class Frozen:
    """A network that is only asked; `weights` as in `Trained`."""

    network: nn.Module
    weights: Weights | None = None


@dataclass(frozen=True)
class Networks:
    """All networks of a method: those it trains, and those it only asks."""

    trained: Mapping[str, Trained]
    frozen: Mapping[str, Frozen] = field(default_factory=dict)


class Method(Protocol):
    """Rollout and losses; everything else is the trainer's."""

    @property
    def networks(self) -> Networks:
        """What the trainer shards, updates and saves."""
        ...

    def chunks(self, iteration: int) -> int:
        """Consecutive chunks that a batch of this iteration needs, the same on all ranks."""
        ...

    def step(self, batch: Any, iteration: int) -> tuple[Losses, Outputs]:
        """Losses of the networks whose turn it is, each a mean over the clips of the batch, and facts to log."""
        ...
