"""Numbers that say how well a measured mouth follows the mouth it should have been."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..media import best_lag

Curve = NDArray[np.float32]

CLOSED_SHARE = 0.2
"""A lip closure is made when the mouth opens to at most this share of the speaker's 95th percentile."""

_OPEN = 0.05
"""A mouth whose 95th percentile is below this does not speak."""

_BLINK_BEGINS, _BLINK_ENDS = 0.6, 0.4


def lag_correlation(follower: ArrayLike, leader: ArrayLike, max_lag: int = 6) -> tuple[int, float]:
    """How well one curve [F] follows another, and how late.

    Returns:
        The lag within +-max_lag frames with the highest correlation, and that correlation; positive: `follower`
        comes late. (0, 0.0) where a curve is constant or nothing correlates above zero.
    """
    correlation, lag = best_lag(np.asarray(follower, np.float32), np.asarray(leader, np.float32), max_lag)
    return lag, correlation


def amplitude_ratio(opening: ArrayLike, truth: ArrayLike) -> tuple[float, float]:
    """Ratios of standard deviation and 95th percentile, opening over truth; NaN where the truth is still."""
    measured, meant = (np.asarray(curve, np.float64) for curve in (opening, truth))
    deviation, height = float(meant.std()), float(np.percentile(meant, 95))
    if deviation < 1e-6 or height < 1e-6:
        return float("nan"), float("nan")
    return float(measured.std()) / deviation, float(np.percentile(measured, 95)) / height


def closure_hits(opening: ArrayLike, closures: ArrayLike, fps: float = 25.0) -> NDArray[np.bool_]:
    """Which lip closures (m, b, p) were made.

    A closure counts when the smallest opening of the frame that shows its time and of the two frames around
    it is at most `CLOSED_SHARE` of the 95th percentile of all of `opening`. A mouth that never opens closes nothing.

    Args:
        opening: Measured opening [F].
        closures: Closure times in seconds [n]; times beyond the frames are left out.
        fps: Frames per second.

    Returns:
        bool [m], m <= n.
    """
    measured = np.asarray(opening, np.float64)
    frames = np.floor(np.asarray(closures, np.float64) * fps).astype(np.int64)
    frames = frames[(frames >= 0) & (frames < len(measured))]
    if not len(frames):
        return np.zeros(0, np.bool_)
    padded = np.pad(measured, 1, mode="edge")
    lowest = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    height = np.percentile(measured, 95)
    hits: NDArray[np.bool_] = (lowest[frames] <= CLOSED_SHARE * height) & (height > _OPEN)
    return hits


def count_blinks(closure: ArrayLike) -> int:
    """Blinks in an eye closure curve [F]: times it rises above 0.6 after having been below 0.4."""
    blinks, closed = 0, False
    for value in np.asarray(closure, np.float64):
        if not closed and value > _BLINK_BEGINS:
            blinks, closed = blinks + 1, True
        elif closed and value < _BLINK_ENDS:
            closed = False
    return blinks
