"""Random numbers as a function of (seed, iteration, sample, purpose).

No generator state has to be saved: a resumed run draws what the uninterrupted one would have drawn, and N ranks draw
together what one rank draws alone.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

_SHARED = 2**63


class Purpose(IntEnum):
    """What a number is for; different purposes never share numbers."""

    BUCKET = 1
    CLIP = 2
    FIRST_CHUNK = 3
    REFERENCE = 4
    CHUNKS = 5
    EXIT = 6
    LEVEL = 7
    NOISE = 8
    MOTION_COUNT = 9
    DROP = 10
    ROLLOUT = 11
    MOTION_STRENGTH = 12
    MOTION_NOISE = 13


class Draws:
    """The numbers of one micro-batch.

    Args:
        seed: Of the run.
        iteration: Counts from 0.
        samples: Numbers of this rank's samples within the iteration's batch over all ranks and micro-batches.
    """

    def __init__(self, seed: int, iteration: int, samples: range) -> None:
        self.seed, self.iteration, self.samples = seed, iteration, samples

    def __len__(self) -> int:
        return len(self.samples)

    def normal(self, purpose: Purpose, shape: tuple[int, ...], index: int = 0) -> Tensor:
        """Standard normals, float32 [B, *shape]."""
        parts = [
            self._generator(sample, purpose, index).standard_normal(shape, dtype=np.float32) for sample in self.samples
        ]
        return torch.from_numpy(np.stack(parts))

    def uniform(self, purpose: Purpose, index: int = 0) -> Tensor:
        """Uniform in [0,1), float32 [B]."""
        parts = [self._generator(sample, purpose, index).random() for sample in self.samples]
        return torch.tensor(parts, dtype=torch.float32)

    def integers(self, purpose: Purpose, stop: int, index: int = 0) -> list[int]:
        """Uniform integers in [0, stop), one per sample."""
        return [int(self._generator(sample, purpose, index).integers(stop)) for sample in self.samples]

    def shared(self, purpose: Purpose, stop: int) -> int:
        """One integer in [0, stop) for all samples of all ranks in this iteration."""
        return int(self._generator(_SHARED, purpose, 0).integers(stop))

    def _generator(self, sample: int, purpose: Purpose, index: int) -> np.random.Generator:
        # Philox counts upwards in the lowest word; the others keep the streams apart.
        counter = np.array([0, (int(purpose) << 32) + index, sample, self.iteration], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=self.seed, counter=counter))
