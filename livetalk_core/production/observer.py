"""What a production tells whoever asked for it while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .facts import ModelFacts
    from .prepare import Job
    from .report import ChunkRecord

Phase = str
"""Names: "checking", "starting" (ranks), "loading", "preparing", "generating", "recovering" (a rank died or hung,
all are replaced; "generating" follows), "finishing"."""


class Observer:
    """Base with nothing to say; methods are called on the thread that produces, while it waits or between steps."""

    def phase(self, name: Phase) -> None:
        """Another part of the work begins."""

    def checked(self, job: Job) -> None:
        """All inputs are good; `job.seconds` is the expected length where it is known."""

    def loaded(self, model: ModelFacts) -> None:
        """The model is there."""

    def step(self, chunk: int, step: int, steps: int) -> None:
        """So many (1 to `steps`) of the denoising steps of a chunk are done; after the last one, decoding begins."""

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """A chunk has been written: uint8 [F,H,W,3], valid until the next one unless copied, and its sound [S]."""
