"""Head, eye and brow motion that follows the mouth track, so that a model can predict it from sound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

MotionTrack = npt.NDArray[np.float32]
"""[F, 7]: head x, head y, head rotation in degrees, blink 0..1, brow raise, gaze x, gaze y (canvas units)."""

POSE_LIMIT = (2.0, 3.0, 2.0)
"""Largest absolute head x, head y (canvas units) and rotation (degrees) of any track."""

BLINK = np.array([0.3, 0.8, 1.0, 1.0, 0.7, 0.3], np.float32)
"""Lid closure of the frames of one blink."""

_QUIET = 0.05
"""Openings below this count as a closed mouth."""

_PAUSE_FRAMES = 5
_PAUSE_DELAY = 2
_MIN_GAP = 20
"""Fewest frames between the starts of two blinks."""


def motion_track(
    rng: np.random.Generator,
    mouth: npt.NDArray[np.float32],
    liveliness: float = 1.0,
    frame_rate: float = 25.0,
) -> MotionTrack:
    """Make the motion of a clip.

    Args:
        rng: Source of the slow sway and of small timing variations.
        mouth: Mouth track [F, 4] of the same clip.
        liveliness: Scale of sway and nods, about 0.4..1.2.
        frame_rate: Frames per second.

    Returns:
        Motion track [F, 7].
    """
    frames = len(mouth)
    opening = np.asarray(mouth[:, 0], np.float64)
    time = np.arange(frames) / frame_rate
    fast = gaussian_filter1d(opening, 3.0, mode="nearest")
    slow = gaussian_filter1d(opening, 8.0, mode="nearest")
    track = np.zeros((frames, 7), np.float32)
    track[:, 0] = _sway(rng, time, 1.6 * liveliness)
    track[:, 1] = _sway(rng, time, 0.8 * liveliness) + 1.8 * liveliness * fast
    track[:, 2] = _sway(rng, time, 1.6 * liveliness)
    track[:, 3] = _blinks(rng, opening, frame_rate)
    track[:, 4] = np.clip(1.5 * liveliness * (slow - 0.12), -0.2, 0.8)
    track[:, 5] = rng.uniform(-0.15, 0.15) + _sway(rng, time, 0.25)
    track[:, 6] = _sway(rng, time, 0.15)
    for column, limit in enumerate(POSE_LIMIT):
        np.clip(track[:, column], -limit, limit, out=track[:, column])
    return track


def _sway(
    rng: np.random.Generator, time: npt.NDArray[np.float64], amplitude: float
) -> npt.NDArray[np.float64]:
    """Sum two slow sines (.08-.3 Hz) whose amplitudes add up to at most ``amplitude``."""
    total = np.zeros_like(time)
    for share in (0.62, 0.38):
        frequency, phase = rng.uniform(0.08, 0.3), rng.uniform(0.0, 2.0 * np.pi)
        total += share * rng.uniform(0.5, 1.0) * np.sin(2.0 * np.pi * frequency * time + phase)
    return amplitude * total


def _blinks(rng: np.random.Generator, opening: npt.NDArray[np.float64], frame_rate: float) -> MotionTrack:
    """Place blinks at pauses, and at a closing mouth when the last blink is long ago."""
    closure = np.zeros(len(opening), np.float32)
    pauses = _pause_starts(opening)
    wait = _patience(rng, opening, 0, frame_rate)
    last = -round(float(rng.uniform(0.1, 0.9)) * wait)
    for frame in range(len(opening)):
        gap = frame - last
        due = gap >= wait and (_is_valley(opening, frame) or gap >= wait + frame_rate)
        if (frame - _PAUSE_DELAY in pauses and gap >= _MIN_GAP) or due:
            span = closure[frame : frame + len(BLINK)]
            np.maximum(span, BLINK[: len(span)], out=span)
            last, wait = frame, _patience(rng, opening, frame, frame_rate)
    return closure


def _pause_starts(opening: npt.NDArray[np.float64]) -> frozenset[int]:
    """Find the first quiet frames after speech that stay quiet for ``_PAUSE_FRAMES`` frames."""
    quiet = opening < _QUIET
    starts = np.flatnonzero(quiet[1:] & ~quiet[:-1]) + 1
    return frozenset(
        int(s) for s in starts if quiet[s : s + _PAUSE_FRAMES].all() and s + _PAUSE_FRAMES <= len(quiet)
    )


def _patience(
    rng: np.random.Generator, opening: npt.NDArray[np.float64], frame: int, frame_rate: float
) -> float:
    """Return the frames to wait for a pause: 2.2-3.5 s while speaking, about 2.5 s in long silence."""
    ahead = opening[frame : frame + round(2.0 * frame_rate)]
    silent = not len(ahead) or float(ahead.max()) < _QUIET
    return frame_rate * float(rng.uniform(2.4, 2.6) if silent else rng.uniform(2.2, 3.5))


def _is_valley(opening: npt.NDArray[np.float64], frame: int) -> bool:
    around = opening[max(frame - 1, 0) : frame + 2]
    return bool(opening[frame] <= around.min())
