"""The sliding window of sound that a stream hears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError

Samples = NDArray[np.float32]


def check_samples(samples: NDArray[np.floating], sample_rate: int, first: int = 0) -> Samples:
    """One channel of finite float32 samples.

    Args:
        samples: [S], any float type.
        sample_rate: Hz, for the time in the message.
        first: Number of the first sample within the whole sound.

    Raises:
        AudioError: not one channel, or NaN or infinity among the samples.
    """
    values = np.asarray(samples, dtype=np.float32)
    if values.ndim != 1:
        raise AudioError(
            f"The sound has shape {values.shape}.",
            "Give one channel: a one-dimensional array.",
            shape=values.shape,
        )
    finite = np.isfinite(values)
    if not finite.all():
        position = int(np.argmin(finite))
        where = (first + position) / sample_rate
        raise AudioError(
            f"Sample {first + position} (at {where:.3f} s) is {values[position]}.",
            "Repair the recording: samples must be finite numbers.",
            sample=first + position,
        )
    return values


@dataclass(frozen=True)
class AudioRing:
    """The newest samples, oldest first, silence before the start. A value: `push` makes another."""

    samples: Samples

    @classmethod
    def silent(cls, length: int) -> AudioRing:
        """A ring of `length` zeros."""
        return cls(np.zeros(length, dtype=np.float32))

    def push(self, samples: Samples) -> AudioRing:
        """The ring after `samples` [S] have come in, S of any size."""
        length = len(self.samples)
        if len(samples) >= length:
            return AudioRing(samples[len(samples) - length :].copy())
        return AudioRing(np.concatenate([self.samples[len(samples) :], samples]))
