"""Change of sample rate for a stream of mono blocks, with the exact length at the end."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_EMPTY: Samples = np.zeros(0, np.float32)


class Resampler:
    """Streaming mono resampler (libswresample) that neither shifts nor shortens the sound.

    After `finish`, exactly round(n * to_rate / from_rate) samples have come out for the n that went in.
    Equal rates pass the samples through untouched.

    Args:
        from_rate: Samples per second going in.
        to_rate: Samples per second coming out.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._taken = 0
        self._given = 0
        self._filter = (
            None if from_rate == to_rate else av.AudioResampler(format="fltp", layout="mono", rate=to_rate)
        )

    def push(self, block: Samples) -> Samples:
        """Take float32 [n], give what is ready, float32 [m] (m may be 0)."""
        self._taken += len(block)
        ready = block if self._filter is None else self._run(block)
        self._given += len(ready)
        return ready

    def finish(self) -> Samples:
        """Give the rest, so that the total length is exact; push nothing afterwards."""
        if self._filter is None:
            return _EMPTY
        # The filter keeps half its length back, and drops a fraction of that when it is flushed:
        # a little silence pushes everything out and the cut restores the length.
        silence = np.zeros(max(64, self.from_rate // 50), np.float32)
        wanted = round(self._taken * self.to_rate / self.from_rate) - self._given
        rest = np.concatenate([self._run(silence), self._run(None)])[: max(0, wanted)]
        self._given += len(rest)
        return rest

    def _run(self, block: Samples | None) -> Samples:
        if self._filter is None or (block is not None and not len(block)):
            return _EMPTY
        frame = None
        if block is not None:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block)[None], format="fltp", layout="mono"
            )
            frame.sample_rate = self.from_rate
        parts = [part.to_ndarray()[0] for part in self._filter.resample(frame)]
        return np.concatenate(parts) if parts else _EMPTY
