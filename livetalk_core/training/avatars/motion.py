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
_BLINK_DELAY = 2
"""Frames from what announces a blink to its start."""

_STRESS_OPENING = 0.46
_STRESS_BEFORE, _STRESS_AFTER = 24, 6
"""A stressed phrase: the smoothed opening is higher than in so many frames before and after, and than this."""

_MIN_GAP = 18
"""Fewest frames between the starts of two blinks."""

_SILENT_GAP = 62
"""Frames between the starts of two blinks in long silence."""


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
    track[:, 3] = _blinks(opening)
    track[:, 4] = np.clip(1.5 * liveliness * (slow - 0.12), -0.2, 0.8)
    track[:, 5] = rng.uniform(-0.15, 0.15) + _sway(rng, time, 0.25)
    track[:, 6] = _sway(rng, time, 0.15)
    for column, limit in enumerate(POSE_LIMIT):
        np.clip(track[:, column], -limit, limit, out=track[:, column])
    return track


def _sway(rng: np.random.Generator, time: npt.NDArray[np.float64], amplitude: float) -> npt.NDArray[np.float64]:
    """Sum two slow sines (.08-.3 Hz) whose amplitudes add up to at most ``amplitude``."""
    total = np.zeros_like(time)
    for share in (0.62, 0.38):
        frequency, phase = rng.uniform(0.08, 0.3), rng.uniform(0.0, 2.0 * np.pi)
        total += share * rng.uniform(0.5, 1.0) * np.sin(2.0 * np.pi * frequency * time + phase)
    return amplitude * total


def _blinks(opening: npt.NDArray[np.float64]) -> MotionTrack:
    """Place blinks at pauses, after stressed phrases and now and then in long silence.

    Nothing is left to chance, and nothing depends on what was long ago: a model that hears the sound of one chunk can
    know when to blink. Blinks at random times are averaged away by a model that decides in few steps.
    """
    closure = np.zeros(len(opening), np.float32)
    announced = _pause_starts(opening) | _stresses(opening)
    last = -_MIN_GAP
    for frame in range(len(opening)):
        gap = frame - last
        silent = gap >= _SILENT_GAP and opening[frame - _SILENT_GAP // 2 : frame + 1].max() < _QUIET
        if (frame - _BLINK_DELAY in announced and gap >= _MIN_GAP) or silent:
            span = closure[frame : frame + len(BLINK)]
            np.maximum(span, BLINK[: len(span)], out=span)
            last = frame
    return closure


def _stresses(opening: npt.NDArray[np.float64]) -> frozenset[int]:
    """Find the crests of the smoothed opening that stand out from what is around them."""
    slow = gaussian_filter1d(opening, 4.0, mode="nearest")
    padded = np.pad(slow, (_STRESS_BEFORE, _STRESS_AFTER), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, _STRESS_BEFORE + 1 + _STRESS_AFTER)
    crest = (slow > _STRESS_OPENING) & (around.argmax(axis=1) == _STRESS_BEFORE)
    return frozenset(int(frame) for frame in np.flatnonzero(crest))


def _pause_starts(opening: npt.NDArray[np.float64]) -> frozenset[int]:
    """Find the first quiet frames after speech that stay quiet for ``_PAUSE_FRAMES`` frames."""
    quiet = opening < _QUIET
    starts = np.flatnonzero(quiet[1:] & ~quiet[:-1]) + 1
    return frozenset(int(s) for s in starts if quiet[s : s + _PAUSE_FRAMES].all() and s + _PAUSE_FRAMES <= len(quiet))
