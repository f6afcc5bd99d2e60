"""Loudness per video frame, and how one curve follows another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float32]

SILENCE_DB = -100.0


def frame_loudness(samples: NDArray[np.float32], sample_rate: int = 16_000, fps: int = 25) -> Curve:
    """Level of the sound under each video frame in dB of full scale, float32 [F].

    The last frame may be part of one: F = ceil(n * fps / sample_rate).
    Frames do not overlap, so the levels of a stream's chunks join to those of the whole.
    """
    per_frame = sample_rate // fps
    count = -(-len(samples) // per_frame)
    padded = np.pad(np.asarray(samples, np.float64), (0, count * per_frame - len(samples)))
    power = (padded.reshape(count, per_frame) ** 2).mean(axis=1) if count else np.zeros(0)
    return (10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))).astype(np.float32)


def scale_loudness(decibels: Curve, span_db: float = 45.0) -> Curve:
    """Map levels [F] to 0..1: 1 is the loudest frame, 0 is `span_db` below it; all silence gives zeros."""
    if not len(decibels) or decibels.max() <= SILENCE_DB + 1:
        return np.zeros(len(decibels), np.float32)
    scaled: Curve = np.clip((decibels - decibels.max() + span_db) / span_db, 0, 1).astype(np.float32)
    return scaled


def loudness_envelope(samples: NDArray[np.float32], sample_rate: int = 16_000, fps: int = 25) -> Curve:
    """Loudness under each video frame as dB scaled to 0..1, float32 [F]."""
    return scale_loudness(frame_loudness(samples, sample_rate, fps))


def best_lag(follower: Curve, leader: Curve, max_lag: int = 10) -> tuple[float, int]:
    """Highest correlation of two curves [F] over shifts of up to `max_lag` frames.

    Returns:
        (correlation, lag); a positive lag means that `follower` comes that many frames after `leader`.
        (0.0, 0) where a curve is constant or too short.
    """
    count = min(len(follower), len(leader))
    best = (0.0, 0)
    # Small shifts first: of equal correlations the smallest shift is the true one.
    reach = min(max_lag, count)
    for lag in sorted(range(-reach, reach + 1), key=abs):
        late = follower[max(0, lag) : count + min(0, lag)]
        early = leader[max(0, -lag) : count + min(0, -lag)]
        if len(late) < 3 or late.std() < 1e-6 or early.std() < 1e-6:
            continue
        value = float(np.corrcoef(late, early)[0, 1])
        if value > best[0] + 1e-9:
            best = (value, lag)
    return best
