"""Synthesisers: phoneme times that fit the sound. Slow tests need the programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from livetalk_core.errors import ConfigError, MissingDependencyError
from livetalk_core.training.embedded.audio_evaluation import correlate_at_best_lag
from livetalk_core.training.speech import espeak as speech_espeak
from livetalk_core.training.speech.alignment import align_to_recording
from livetalk_core.training.speech.espeak import Utterance, speak_espeak
from livetalk_core.training.speech.festival import TRAINING_VOICES, FestivalVoice, speak_festival
from livetalk_core.training.speech.flite import speak_flite
from livetalk_core.training.speech.held_out import RECORDINGS, recorded_utterances
from livetalk_core.training.speech.process import read_wave
from livetalk_core.training.speech.visemes import visemes_of

pytestmark = pytest.mark.unit

TEXT = "A sassy sea saw, a shiny shoe, so assess a see saw."


def _try(speak: Callable[[str], Utterance], text: str) -> Utterance:
    try:
        return speak(text)
    except MissingDependencyError as error:
        pytest.skip(str(error))


def _hiss(samples: np.ndarray) -> np.ndarray:
    frames = samples[: len(samples) // 640 * 640].reshape(-1, 640)
    power = np.abs(np.fft.rfft(frames * np.hanning(640), axis=1)) ** 2
    return np.log10(power[:, 160:].sum(axis=1) + 1e-5) - np.log10(power[:, :120].sum(axis=1) + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "speak",
    [
        lambda text: speak_espeak(text, "en-us"),
        lambda text: speak_flite(text, "slt"),
        lambda text: speak_flite(text, "rms"),
        speak_festival,
    ],
    ids=["espeak", "slt", "rms", "festival"],
)
def test_fricatives_hiss_when_the_events_say_so(speak: Callable[[str], Utterance]) -> None:
    spoken = _try(speak, TEXT)
    hiss = _hiss(spoken.samples)
    said = np.zeros(len(hiss))
    for event in spoken.events:
        if event.symbol.strip("ˈˌː") in {"s", "ʃ", "sh", "z"}:
            said[round(event.start * 25) : round(event.end * 25)] = 1
    score = correlate_at_best_lag(hiss, said)
    assert score.lag == 0
    assert score.correlation > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("voice", TRAINING_VOICES, ids=lambda voice: voice.name)
def test_every_training_voice_has_lips_that_fit_its_sound(voice: FestivalVoice) -> None:
    spoken = _try(
        lambda text: speak_festival(text, voice),
        "Mama seta masa, pasota basima, sama masapa.".translate(
            str.maketrans("Mamseptobi", "Мамсептоби") if voice.language == "ru" else {}
        ),
    )
    assert all(visemes_of(event.symbol) for event in spoken.events if event.symbol)
    assert len(spoken.closures()) >= 5
    hiss = _hiss(spoken.samples)
    said = np.zeros(len(hiss))
    for event in spoken.events:
        if event.symbol in {"s", "ss", "z"}:
            said[round(event.start * 25) : round(event.end * 25)] = 1
    score = correlate_at_best_lag(hiss, said)
    assert abs(score.lag) <= 1
    assert score.correlation > 0.4


@pytest.mark.slow
def test_espeak_gives_the_gap_before_a_burst_to_the_stop() -> None:
    spoken = _try(speak_espeak, "A papa may appear. A poppy.")
    stops = [e for e in spoken.events if e.symbol == "p" and e.start > 0.1]
    assert len(stops) >= 3
    for stop in stops:
        first = round(stop.start * 16000)
        assert np.abs(spoken.samples[first + 16 : first + 320]).max() < 0.01


@pytest.mark.slow
def test_alignment_moves_phonemes_onto_a_slower_reading() -> None:
    fast = _try(lambda text: speak_flite(text, "slt", 1.0), "Front center.")
    slow = speak_flite("Front center.", "slt", 1.4)
    aligned = align_to_recording(slow.samples, [fast])
    expected = [e.start for e in slow.events if e.symbol]
    found = [e.start for e in aligned.events]
    assert len(found) == len(expected)
    assert np.median(np.abs(np.subtract(found, expected))) < 0.04


@pytest.mark.slow
def test_recorded_words_have_tracks() -> None:
    if not (RECORDINGS / "Front_Center.wav").is_file():
        pytest.skip("the recordings of alsa-utils are not installed")
    _try(lambda text: speak_flite(text), "Front.")
    utterances = recorded_utterances()
    assert len(utterances) == 9
    for utterance in utterances:
        assert len(utterance.samples) == 640 * utterance.frames
        assert utterance.mouth[:, 0].max() > 0.4


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match="apt-get install flite"):
        speak_flite("Hello")
    with pytest.raises(MissingDependencyError, match="apt-get install festival"):
        speak_festival("Hello")
    monkeypatch.setattr(speech_espeak, "_LIBRARY", "libnowhere.so.9")
    with pytest.raises(MissingDependencyError, match="apt-get install"):
        speech_espeak._Espeak()


@pytest.mark.parametrize("text", ['") (system "ls', "-o x", "", "naïve"])
def test_text_that_could_be_syntax_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        speak_festival(text)
    with pytest.raises(ConfigError):
        speak_flite(text)


def test_recordings_of_other_rates_are_resampled(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "tone.wav"
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(np.stack([tone, np.zeros_like(tone)], axis=1).tobytes())
    samples = read_wave(path)
    assert len(samples) == 16000
    assert np.abs(np.fft.rfft(samples)).argmax() == 440
