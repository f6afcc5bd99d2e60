"""What a backend tells: who computes, and each chunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ModelFacts:
    """What computes.

    Attributes:
        name, revision: Name and fingerprint of the weights.
        device, dtype: Where transformer and VAE compute, and in which number format.
        world_size, worker_pids: The processes that compute.
    """

    name: str
    revision: str
    device: str
    dtype: str
    world_size: int
    worker_pids: tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """A chunk.

    Attributes:
        index: Chunk number.
        first_frame: Number of its first frame within the stream.
        frames: uint8 [F,H,W,3], perhaps memory that is used again when nothing refers to it any more.
        timings: Seconds per stage.
        stats: Measurements, see `engine.Chunk`.
        state: From which the stream continues after it; b"" unless the request keeps states.
    """

    index: int
    first_frame: int
    frames: NDArray[np.uint8]
    timings: dict[str, float]
    stats: dict[str, float]
    state: bytes
