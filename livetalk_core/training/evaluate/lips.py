"""How well the lips of a video follow the phonemes of its sound, and what loudness alone would score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...lip_sync import amplitude_ratio, closure_hits, lag_correlation
from ...media import loudness_envelope
from ..speech.bank import SAMPLES_PER_FRAME
from ..speech.held_out import EvaluationUtterance
from .tables import mean

Curve = NDArray[np.float32]


@dataclass(frozen=True)
class LipScore:
    """Lips against the phoneme track.

    Attributes:
        score: Correlation of measured and meant opening at the best lag.
        lag: That lag in frames; positive: the lips come late.
        deviation_ratio, height_ratio: Measured over meant standard deviation and 95th percentile.
        closures, closures_made: Lip closures (m, b, p) in the sound, and those the lips made.
    """

    score: float
    lag: int
    deviation_ratio: float
    height_ratio: float
    closures: int
    closures_made: int


def lip_score(opening: Curve, speech: EvaluationUtterance) -> LipScore:
    """Score a measured opening [F] of a video that shows `speech`."""
    meant = speech.mouth[:, 0]
    lag, score = lag_correlation(opening, meant)
    deviation, height = amplitude_ratio(opening, meant)
    hits = closure_hits(opening, speech.closures)
    return LipScore(score, lag, deviation, height, len(hits), int(hits.sum()))


def loudness_scores(speech: EvaluationUtterance) -> tuple[float, float]:
    """Correlation with the phoneme track that a mouth would reach that only follows the sound's level.

    Returns:
        Of the root mean square per frame, and of the level in decibels scaled to 0..1; each at its best lag.
    """
    blocks = speech.samples.reshape(-1, SAMPLES_PER_FRAME).astype(np.float64)
    level = np.sqrt(np.mean(blocks**2, axis=1)).astype(np.float32)
    meant = speech.mouth[:, 0]
    return lag_correlation(level, meant)[1], lag_correlation(loudness_envelope(speech.samples), meant)[1]


def mean_score(scores: Sequence[LipScore]) -> LipScore:
    """Mean of scores and ratios over clips; closures are summed, and the lag is the largest in magnitude."""
    return LipScore(
        float(np.mean([s.score for s in scores])),
        max((s.lag for s in scores), key=abs),
        _mean_of_known([s.deviation_ratio for s in scores]),
        _mean_of_known([s.height_ratio for s in scores]),
        sum(s.closures for s in scores),
        sum(s.closures_made for s in scores),
    )


def _mean_of_known(ratios: Sequence[float]) -> float:
    """A clip too short for its mouth to open has no ratio."""
    return mean([ratio for ratio in ratios if not math.isnan(ratio)])
