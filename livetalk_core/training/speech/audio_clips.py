"""Random clips of speech, pauses, recording noise and leading silence, with their mouth tracks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .augment import coloured_noise, random_response
from .bank import SAMPLES_PER_FRAME, SpeechBank

SILENT_CLIPS_SHARE: Final = 0.04
LEADING_SILENCE_SHARE: Final = 0.30
_LONGEST_LEAD_FRAMES = 175
_LATE_SAMPLES: Final = 160
"""How late espeak-ng reports its phonemes: by its times, lips would come 10 ms after those of other synthesisers."""


def compose(
    bank: SpeechBank, rng: np.random.Generator, frames: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sound of `frames` video frames and what the mouth does meanwhile.

    Utterances of the bank follow each other with exponential pauses, the first one cut at a random place.
    Then a gain of -14..+8 dB, at times another frequency response and noise at -70..-30 dB. Some clips are
    silent; some begin with up to 7 s of exact zeros, as the window of a stream that has just started does.
    The sound comes 10 ms later than the utterances' own mouth tracks have it.

    Returns: samples [frames * 640] float32 at 16 kHz, mouth [frames, 4] float32.
    """
    samples, mouth = _string_together(bank, rng, frames)
    samples *= 10 ** (float(rng.uniform(-14, 8)) / 20)
    if rng.random() < 0.3:
        samples = np.fft.irfft(np.fft.rfft(samples) * random_response(len(samples), rng), len(samples))
    if rng.random() < 0.6:
        level = 10 ** (float(rng.uniform(-70, -30)) / 20)
        samples = samples + coloured_noise(len(samples), rng) * level
    if rng.random() < LEADING_SILENCE_SHARE:
        lead = int(rng.integers(1, max(2, min(_LONGEST_LEAD_FRAMES, frames - 20))))
        samples[: lead * SAMPLES_PER_FRAME] = 0.0
        mouth[:lead] = 0.0
    late = np.pad(samples, (_LATE_SAMPLES, 0))[: len(samples)]
    return np.clip(late, -1.0, 1.0).astype(np.float32), mouth


def _string_together(
    bank: SpeechBank, rng: np.random.Generator, frames: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    samples = np.zeros(frames * SAMPLES_PER_FRAME)
    mouth = np.zeros((frames, 4), np.float32)
    if rng.random() < SILENT_CLIPS_SHARE:
        return samples, mouth
    at = int(rng.integers(-60, 40))
    while at < frames:
        spoken, track = bank.utterance(int(rng.integers(len(bank))))
        first, last = max(0, -at), min(len(track), frames - at)
        if last > first:
            place = slice((at + first) * SAMPLES_PER_FRAME, (at + last) * SAMPLES_PER_FRAME)
            gain = 10 ** (float(rng.uniform(-3, 3)) / 20)
            samples[place] = gain * spoken[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
            mouth[at + first : at + last] = track[first:last]
        at += len(track) + int(rng.exponential(12))
    return samples, mouth
