"""Phoneme times for a recording of known words: warp a synthesiser's reading of the same words onto it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from ...errors import TrainingError
from .espeak import SAMPLE_RATE, Utterance
from .visemes import PhonemeEvent

Array = NDArray[np.float64]

HOP: Final = 160
_WINDOW: Final = 400
_FFT: Final = 512
_MEL_BANDS: Final = 28
_COEFFICIENTS: Final = 13
_SPEECH_BELOW_PEAK_DB: Final = 38.0
_SLOPE_PENALTY: Final = 0.35
_SHORTEST_PAUSE_SECONDS: Final = 0.14
_PAUSE_MARGIN_SECONDS: Final = 0.02


def align_to_recording(recording: NDArray[np.float32], readings: Sequence[Utterance]) -> Utterance:
    """The recording with the phonemes of the reading that fits it best (dynamic time warping on cepstra).

    Args:
        recording: [S] samples at 16 kHz of somebody who says the words once.
        readings: the same words by synthesisers.

    Raises:
        TrainingError: the recording or all readings are silent, or there are no readings.
    """
    target_start, target = _speech_cepstra(recording)
    best: tuple[float, Utterance] | None = None
    for reading in readings:
        source_start, source = _speech_cepstra(reading.samples)
        cost, source_steps, target_steps = warp(source, target)
        if best is not None and cost >= best[0]:
            continue
        source_times = source_start + source_steps * HOP / SAMPLE_RATE
        target_times = target_start + target_steps * HOP / SAMPLE_RATE
        # One time per source step: the middle of the target steps it was matched with.
        knots = np.unique(source_times)
        values = np.array([target_times[source_times == knot].mean() for knot in knots])
        spoken = [event for event in reading.events if event.symbol]
        starts = np.interp([event.start for event in spoken], knots, values)
        ends = np.interp([event.end for event in spoken], knots, values)
        events = tuple(
            event._replace(start=float(start), end=float(end))
            for event, start, end in zip(spoken, starts, ends, strict=True)
        )
        best = (cost, Utterance(recording, _without_pauses(recording, events)))
    if best is None:
        raise TrainingError("no reading to align with", hint="pass at least one synthesised reading")
    return best[1]


def _without_pauses(recording: NDArray[np.float32], events: tuple[PhonemeEvent, ...]) -> tuple[PhonemeEvent, ...]:
    """Take pauses of the speaker, which the reading does not have, out of the phonemes they were added to."""
    loud = np.flatnonzero(_loud(_power(recording)))
    ends = np.flatnonzero(np.diff(loud) * HOP / SAMPLE_RATE > _SHORTEST_PAUSE_SECONDS)
    kept = list(events)
    for first, last in zip(loud[ends], loud[ends + 1], strict=True):
        pause_start = first * HOP / SAMPLE_RATE + _PAUSE_MARGIN_SECONDS
        pause_end = last * HOP / SAMPLE_RATE - _PAUSE_MARGIN_SECONDS
        for index, event in enumerate(kept):
            if event.start >= pause_end or event.end <= pause_start:
                continue
            if pause_start - event.start >= event.end - pause_end:
                kept[index] = event._replace(end=max(event.start, pause_start))
            else:
                kept[index] = event._replace(start=min(event.end, pause_end))
    return tuple(event for event in kept if event.end > event.start)


def warp(source: Array, target: Array) -> tuple[float, NDArray[np.int64], NDArray[np.int64]]:
    """Cheapest monotonic path between two feature sequences [n, k] and [m, k].

    Returns: mean cost per path step, and the source and target index of every step.
    """
    distance = np.sqrt(np.maximum(_squared_distances(source, target), 0.0))
    penalty = _SLOPE_PENALTY * float(distance.mean())
    rows, columns = distance.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    move = np.zeros((rows, columns), np.int8)
    # Cells of one anti-diagonal do not depend on each other.
    for diagonal in range(rows + columns - 1):
        row = np.arange(max(0, diagonal - columns + 1), min(rows - 1, diagonal) + 1)
        column = diagonal - row
        options = np.stack((total[row, column], total[row, column + 1] + penalty, total[row + 1, column] + penalty))
        move[row, column] = options.argmin(axis=0)
        total[row + 1, column + 1] = options.min(axis=0) + distance[row, column]
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        last_row, last_column = path[-1]
        choice = move[last_row, last_column]
        path.append((last_row - int(choice != 2), last_column - int(choice != 1)))
    steps = np.asarray(path[::-1], dtype=np.int64)
    return float(total[rows, columns]) / len(steps), steps[:, 0], steps[:, 1]


def _squared_distances(source: Array, target: Array) -> Array:
    squares = np.sum(source**2, axis=1)[:, None] + np.sum(target**2, axis=1)[None]
    return np.asarray(squares - 2 * source @ target.T)


def _power(samples: NDArray[np.float32]) -> Array:
    """Power spectra [n, bins], one row per 10 ms."""
    padded = np.pad(samples.astype(np.float64), (_WINDOW // 2, _WINDOW // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP] * np.hamming(_WINDOW)
    return np.asarray(np.abs(np.fft.rfft(frames, _FFT, axis=1)) ** 2)


def _loud(power: Array) -> NDArray[np.bool_]:
    level = 10 * np.log10(power.sum(axis=1) + 1e-10)
    return np.asarray(level > level.max() - _SPEECH_BELOW_PEAK_DB)


def _speech_cepstra(samples: NDArray[np.float32]) -> tuple[float, Array]:
    """Start of the speech (seconds) and its normalised cepstra with differences, one row per 10 ms."""
    power = _power(samples)
    mel = np.log(power @ _mel_filters().T + 1e-8)
    loud = np.flatnonzero(_loud(power))
    if power.max() < 1e-6 or len(loud) < 2:
        raise TrainingError("there is no speech to align", hint="pass a recording with words in it")
    first, last = int(loud[0]), int(loud[-1]) + 1
    cepstra = np.asarray(dct(mel, type=2, norm="ortho", axis=1))[first:last, :_COEFFICIENTS]
    cepstra = (cepstra - cepstra.mean(axis=0)) / (cepstra.std(axis=0) + 1e-6)
    change = np.gradient(cepstra, axis=0) * 2.0
    return first * HOP / SAMPLE_RATE, np.concatenate([cepstra, change], axis=1)


@lru_cache(maxsize=1)
def _mel_filters() -> Array:
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), _MEL_BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))
