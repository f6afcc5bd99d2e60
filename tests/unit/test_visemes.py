"""Mouth tracks from phonemes: shapes, closures at any frame phase, rest in pauses, time shifts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livetalk_core.training.speech.visemes import (
    CLOSED_OPENING,
    PhonemeEvent,
    closure_times,
    is_closure,
    mouth_track,
    visemes_of,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("symbol", ["p", "ˈb", "m", "pʰ", "m̩", "b1"])
def test_bilabials_close_the_lips(symbol: str) -> None:
    assert is_closure(symbol)
    assert visemes_of(symbol)[0].opening == 0.0


@pytest.mark.parametrize("symbol", ["", "_:", "ˈ", "t", "aɪ", "f"])
def test_other_symbols_are_no_closure(symbol: str) -> None:
    assert not is_closure(symbol)


def test_same_sound_in_both_alphabets_gives_the_same_mouth() -> None:
    for ipa, arpabet in [("aɪ", "ay"), ("oʊ", "ow"), ("ʃ", "sh"), ("tʃ", "ch"), ("θ", "th"), ("uː", "uw")]:
        assert visemes_of(ipa) == visemes_of(arpabet), (ipa, arpabet)


def test_diphthong_moves_from_open_to_narrow() -> None:
    track = mouth_track([PhonemeEvent(0.2, 0.5, "aɪ")], 1.0)
    assert track[6:9, 0].mean() > 0.8
    assert track[11, 0] < 0.6
    assert track[11, 1] > track[6, 1]


def test_pause_is_a_closed_mouth_at_rest() -> None:
    track = mouth_track([PhonemeEvent(0.0, 0.3, "a"), PhonemeEvent(0.3, 1.5, "")], 1.5)
    assert track.shape == (38, 4)
    assert np.abs(track[15:]).max() < 1e-3


def test_no_phonemes_give_rest() -> None:
    assert not mouth_track([], 0.5).any()


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(0.2, 0.4),
    length=st.floats(0.02, 0.25),
    symbol=st.sampled_from(["p", "b", "m"]),
    before=st.sampled_from(["a", "i", "u", "ɛ"]),
)
def test_every_closure_reaches_a_frame(start: float, length: float, symbol: str, before: str) -> None:
    end = start + length
    events = [PhonemeEvent(0.0, start, before), PhonemeEvent(start, end, symbol), PhonemeEvent(end, 1.0, "a")]
    opening = mouth_track(events, 1.0)[:, 0]
    frame = int(closure_times(events)[0] * 25)
    assert opening[frame - 1 : frame + 2].min() <= CLOSED_OPENING
    assert opening[:frame].max() > 0.2, "the vowel before must still open the mouth"


def test_whole_frame_shift_shifts_the_track() -> None:
    events = [PhonemeEvent(0.2, 0.3, "m"), PhonemeEvent(0.3, 0.5, "a"), PhonemeEvent(0.5, 0.62, "s")]
    later = [e._replace(start=e.start + 0.4, end=e.end + 0.4) for e in events]
    np.testing.assert_allclose(mouth_track(events, 1.0), mouth_track(later, 1.4)[10:], atol=2e-3)


def test_values_stay_in_range() -> None:
    rng = np.random.default_rng(3)
    symbols = ["a", "p", "u", "s", "θ", "m", "", "f", "iː", "ʃ"]
    times = np.cumsum(rng.uniform(0.02, 0.2, 80))
    events = [
        PhonemeEvent(float(a), float(b), str(rng.choice(symbols))) for a, b in itertools.pairwise(times)
    ]
    track = mouth_track(events, float(times[-1]))
    assert track.dtype == np.float32
    assert track[:, [0, 2, 3]].min() >= 0.0
    assert track.max() <= 1.0
    assert track[:, 1].min() >= -1.0


def test_neighbouring_closures_count_once() -> None:
    events = [PhonemeEvent(0.1, 0.2, "m"), PhonemeEvent(0.2, 0.25, "b"), PhonemeEvent(0.6, 0.7, "p")]
    assert len(closure_times(events)) == 2
