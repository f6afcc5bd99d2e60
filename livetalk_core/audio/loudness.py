"""Loudness after BS.1770: the gain that the published system gives its sound before encoding it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_SECONDS = 0.4
# Silence measures as minus infinity, almost-silence far below any target: both are left as they are.
_UNUSABLE_LOUDNESS = 100.0


@lru_cache(maxsize=4)
def _meter(sample_rate: int) -> Any:
    import pyloudnorm

    return pyloudnorm.Meter(sample_rate, block_size=_BLOCK_SECONDS)


def match_loudness(samples: NDArray[np.float32], sample_rate: int, target: float) -> NDArray[np.float32]:
    """Samples [S] at an integrated loudness of `target` LUFS, as published.

    Silence, and sound shorter than one 0.4 s measuring block, come back unchanged.
    """
    if len(samples) < _BLOCK_SECONDS * sample_rate:
        return samples
    precise = samples.astype(np.float64)
    loudness = float(_meter(sample_rate).integrated_loudness(precise))
    if not abs(loudness) <= _UNUSABLE_LOUDNESS:
        return samples
    gain = 10.0 ** ((target - loudness) / 20.0)
    louder: NDArray[np.float32] = (gain * precise).astype(np.float32)
    return louder
