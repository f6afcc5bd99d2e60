"""What a production tells whoever asked for it while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from .prepare import Job
    from .report import ChunkRecord

Phase = str
"""Names: "checking", "loading", "preparing", "generating", "finishing"."""


class Observer:
    """Base with nothing to say; methods are called on the thread that produces, between two chunks at the latest."""

    def phase(self, name: Phase) -> None:
        """Another part of the work begins."""

    def checked(self, job: Job) -> None:
        """All inputs are good; `job.seconds` is the expected length where it is known."""

    def loaded(self, bundle: ModelBundle) -> None:
        """The model is there."""

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """A chunk has been written: uint8 [F,H,W,3], and the sound that came in since the last one, [S]."""
