"""How well a mouth follows the phonemes: correlation at the best lag, closures, loudness as baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..speech.bank import SAMPLES_PER_FRAME
from ..speech.held_out import EvaluationUtterance
from ..speech.visemes import FRAMES_PER_SECOND

Track = NDArray[np.float32]


@dataclass(frozen=True)
class LipScore:
    """Correlation of two opening tracks at their best lag (frames; > 0: the first one is late)."""

    correlation: float
    lag: int


def correlate_at_best_lag(measured: Track, truth: Track, longest_lag: int = 5) -> LipScore:
    """Pearson correlation of two tracks [F] at the best shift up to `longest_lag` frames; 0 if one is
    flat."""
    best = LipScore(-1.0, 0)
    for lag in sorted(range(-longest_lag, longest_lag + 1), key=abs):
        count = min(len(measured), len(truth)) - abs(lag)
        late = measured[max(0, lag) : max(0, lag) + count]
        early = truth[max(0, -lag) : max(0, -lag) + count]
        if count < 2 or late.std() < 1e-6 or early.std() < 1e-6:
            continue
        value = float(np.corrcoef(late, early)[0, 1])
        if value > best.correlation:
            best = LipScore(value, lag)
    return best if best.correlation > -1.0 else LipScore(0.0, 0)


def closures_reached(opening: Track, closures: NDArray[np.float64], closed: float = 0.2) -> int:
    """Number of closures (seconds) with an opening <= `closed` of its maximum within one frame; a mouth that never
    opens reaches none."""
    limit = closed * float(opening.max(initial=0.0))
    reached = 0
    if not limit:
        return reached
    for time in closures:
        frame = min(len(opening) - 1, int(time * FRAMES_PER_SECOND))
        reached += bool(opening[max(0, frame - 1) : frame + 2].min() <= limit)
    return reached


def loudness_track(samples: NDArray[np.float32]) -> Track:
    """Root mean square per video frame [F]: what lips that merely follow the volume would do."""
    frames = samples[: len(samples) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    return np.asarray(np.sqrt(np.mean(np.square(frames), axis=1)), dtype=np.float32)


def score_voices(
    utterances: Sequence[EvaluationUtterance], opening_of: Callable[[EvaluationUtterance], Track]
) -> dict[str, dict[str, float]]:
    """Mean scores per voice ("flite/slt") of the opening tracks that `opening_of` gives.

    Keys of a score: correlation, lag (mean of absolute best lags), closures (share reached; absent if the
    voice has none), loudness (correlation of the loudness with the truth).
    """
    grouped: dict[str, list[EvaluationUtterance]] = {}
    for utterance in utterances:
        voice = f"{utterance.synthesiser}/{utterance.voice}"
        group = utterance.name if utterance.name == "recorded/all" else voice
        grouped.setdefault(group, []).append(utterance)
    return {group: _score(members, opening_of) for group, members in grouped.items()}


def _score(
    utterances: Sequence[EvaluationUtterance], opening_of: Callable[[EvaluationUtterance], Track]
) -> dict[str, float]:
    lips: list[LipScore] = []
    loudness: list[float] = []
    reached = total = 0
    for utterance in utterances:
        opening, truth = opening_of(utterance), utterance.mouth[:, 0]
        lips.append(correlate_at_best_lag(opening, truth))
        loudness.append(correlate_at_best_lag(loudness_track(utterance.samples), truth).correlation)
        reached += closures_reached(opening, utterance.closures)
        total += len(utterance.closures)
    score = {
        "correlation": float(np.mean([lip.correlation for lip in lips])),
        "lag": float(np.mean([abs(lip.lag) for lip in lips])),
        "loudness": float(np.mean(loudness)),
    }
    return score | ({"closures": reached / total} if total else {})
