"""Mouth shapes from timed phonemes: the ground truth that the avatar's lips and the audio encoder learn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

FRAMES_PER_SECOND: Final = 25
CLOSED_OPENING: Final = 0.08

_OVERSAMPLING = 8
_COARTICULATION_SECONDS = 0.038
_LONGEST_PHONEME_SECONDS = 0.35
# Half a frame plus a margin: whatever the phase of the frame grid, one frame centre falls inside the closure.
_CLOSURE_HALF_SECONDS = 0.023
_CLOSURE_FLANK_SECONDS = 0.034
_FIRST_HALF_OF_DIPHTHONG = 0.55


class PhonemeEvent(NamedTuple):
    """One phoneme (IPA or ARPAbet symbol; empty for a pause) from `start` to `end` seconds."""

    start: float
    end: float
    symbol: str


class Viseme(NamedTuple):
    """Mouth target: opening 0..1, width -1 (rounded) .. 1 (spread), teeth 0..1, tongue 0..1."""

    opening: float
    width: float
    teeth: float
    tongue: float


def _table() -> dict[str, Viseme]:
    groups = (
        ("a ɑ ɐ æ ʌ aa ae ah ɶ", Viseme(0.95, 0.25, 0.35, 0.30)),
        ("ɛ e œ eh ɜ er", Viseme(0.62, 0.50, 0.50, 0.30)),
        ("i ɪ iy ih j y", Viseme(0.36, 0.85, 0.70, 0.10)),
        ("ɔ ɒ ao", Viseme(0.74, -0.55, 0.15, 0.10)),
        ("o ø", Viseme(0.60, -0.75, 0.10, 0.10)),
        ("u ʊ w uw uh ɯ ʏ ɥ ʉ ʍ", Viseme(0.32, -1.00, 0.00, 0.00)),
        ("ə ax ɚ ɨ ɵ ɤ ɘ ᵻ", Viseme(0.48, 0.05, 0.30, 0.20)),
        ("p b m em ɓ ɸ β", Viseme(0.00, 0.00, 0.00, 0.00)),
        ("f v ʋ ɱ", Viseme(0.10, 0.15, 1.00, 0.00)),
        ("s z t d n ɾ l ɬ ts dz ɲ ʎ en el dx nx ɗ c ɟ ɭ ɳ ʈ ɖ ɫ", Viseme(0.22, 0.35, 0.85, 0.20)),
        ("ʃ ʒ ʂ ʐ ɕ ʑ tʃ dʒ tɕ dʑ sh zh ch jh", Viseme(0.26, -0.55, 0.90, 0.00)),
        ("k g ɡ ŋ h x ç ɣ ʁ q χ ng hh ʔ ħ ɦ ʕ ʝ", Viseme(0.36, 0.10, 0.30, 0.10)),
        ("r ɹ ʀ ɽ ɻ", Viseme(0.32, -0.45, 0.20, 0.10)),
        ("θ ð th dh", Viseme(0.24, 0.25, 0.90, 0.90)),
    )
    return {symbol: viseme for symbols, viseme in groups for symbol in symbols.split()}


_VISEMES: Final = _table()
_DIPHTHONGS: Final = {"ay": "aɪ", "aw": "aʊ", "ey": "eɪ", "ow": "oʊ", "oy": "ɔɪ"}
_VOWELS: Final = frozenset("aɑɐæʌɶɛeœɜiɪyɔɒoøuʊɯʏʉəɚɨɵɤɘᵻ")
# Stress, length, tone and other marks: everything that is no letter of a sound.
_MARKS: Final = re.compile("[ˈˌːˑ0-9_ \\-'.|^~\u0300-\u036fʰʲʷˤˠⁿ\u02de]")


def visemes_of(symbol: str) -> tuple[Viseme, ...]:
    """Mouth targets passed through during one phoneme: none for a pause, two for a diphthong, else one."""
    name = _MARKS.sub("", symbol)
    name = _DIPHTHONGS.get(name, name)
    if name in _VISEMES:
        return (_VISEMES[name],)
    known = [letter for letter in name if letter in _VISEMES]
    if not known:
        return ()
    if len(known) > 1 and known[0] in _VOWELS and known[-1] in _VOWELS:
        return (_VISEMES[known[0]], _VISEMES[known[-1]])
    return (_VISEMES[known[0]],)


def is_closure(symbol: str) -> bool:
    """Whether the lips meet during this phoneme (p, b, m and their variants)."""
    targets = visemes_of(symbol)
    return bool(targets) and targets[0].opening == 0.0


def closure_times(events: Sequence[PhonemeEvent]) -> NDArray[np.float64]:
    """Middle of each lip closure in seconds, [n]; runs of closing phonemes ("mb") count as one."""
    times: list[float] = []
    previous_end = -1.0
    for event in events:
        if not is_closure(event.symbol):
            continue
        start, end = _closed_interval(event)
        if event.start - previous_end > 0.03:
            times.append((start + end) / 2)
        previous_end = event.end
    return np.asarray(times, dtype=np.float64)


def mouth_track(events: Sequence[PhonemeEvent], seconds: float) -> NDArray[np.float32]:
    """Mouth parameters at 25 frames per second from timed phonemes.

    Targets are held for their phoneme, blended by a Gaussian (coarticulation), and lip closures are carved in
    afterwards so that smoothing cannot erase them: every closure has a frame with opening <= CLOSED_OPENING.

    Returns [F, 4] float32 (opening, width, teeth, tongue) at the frame centres (f + 0.5) / 25, F = ceil(25
    s).
    """
    frames = max(1, int(np.ceil(seconds * FRAMES_PER_SECOND - 1e-6)))
    rate = FRAMES_PER_SECOND * _OVERSAMPLING
    held = np.zeros((frames * _OVERSAMPLING, 4))
    for event in events:
        _hold(held, event, rate)
    smooth = gaussian_filter1d(held, rate * _COARTICULATION_SECONDS, axis=0, mode="nearest")
    smooth[:, 0] *= 1.08
    times = (np.arange(len(held)) + 0.5) / rate
    for event in events:
        if is_closure(event.symbol):
            smooth[:, 0] *= _opening_left(times, event)
    low = np.array([0.0, -1.0, 0.0, 0.0])
    # Two neighbouring oversampled points straddle the frame centre; their mean is the value at it.
    pairs = smooth.reshape(frames, _OVERSAMPLING, 4)[:, _OVERSAMPLING // 2 - 1 : _OVERSAMPLING // 2 + 1]
    return np.asarray(np.clip(pairs.mean(axis=1), low, 1.0), dtype=np.float32)


def _hold(held: NDArray[np.float64], event: PhonemeEvent, rate: int) -> None:
    targets = visemes_of(event.symbol)
    if not targets:
        return
    end = min(event.end, event.start + _LONGEST_PHONEME_SECONDS)
    middle = event.start + (end - event.start) * _FIRST_HALF_OF_DIPHTHONG
    spans = [(event.start, end)] if len(targets) == 1 else [(event.start, middle), (middle, end)]
    for (start, stop), target in zip(spans, targets, strict=True):
        first = round(start * rate)
        held[first : max(round(stop * rate), first + 1)] = target


def _closed_interval(event: PhonemeEvent) -> tuple[float, float]:
    """Part of a closing phoneme with touching lips: a stop opens at its release, a nasal at its end."""
    length = min(event.end - event.start, _LONGEST_PHONEME_SECONDS)
    share = 1.0 if "m" in event.symbol else 0.65
    return event.start, event.start + share * length


def _opening_left(times: NDArray[np.float64], event: PhonemeEvent) -> NDArray[np.float64]:
    start, end = _closed_interval(event)
    half = max(_CLOSURE_HALF_SECONDS, (end - start) / 2 - 0.02)
    beyond = np.maximum(0.0, np.abs(times - (start + end) / 2) - half)
    return 1.0 - np.exp(-np.square(beyond / _CLOSURE_FLANK_SECONDS))
