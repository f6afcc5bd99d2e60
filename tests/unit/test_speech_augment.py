"""Augmentation changes the voice and keeps the timing; banks and clips keep sound and mouth together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from livetalk_core.errors import TrainingError
from livetalk_core.training.speech import augment as augment
from livetalk_core.training.speech import bank as bank_module
from livetalk_core.training.speech.audio_clips import compose
from livetalk_core.training.speech.bank import (
    HELD_OUT_LANGUAGES,
    HELD_OUT_VARIANTS,
    TRAINING_LANGUAGES,
    TRAINING_VARIANTS,
    SpeechBank,
    load_bank,
    make_bank,
    pack_utterance,
    random_voice,
    save_bank,
    speak_one,
)
from livetalk_core.training.speech.espeak import Utterance
from livetalk_core.training.speech.festival import TRAINING_VOICES, FestivalVoice
from livetalk_core.training.speech.text import random_text
from livetalk_core.training.speech.visemes import PhonemeEvent

pytestmark = pytest.mark.unit


def _syllables(count: int = 6) -> Utterance:
    """Buzzing vowels of 0.2 s between silences of 0.2 s."""
    time = np.arange(int(count * 0.4 * 16000)) / 16000
    voiced = (time % 0.4) >= 0.2
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 30))
    events = tuple(PhonemeEvent(i * 0.4 + 0.2, i * 0.4 + 0.4, "a") for i in range(count))
    return Utterance((0.1 * buzz * voiced).astype(np.float32), events)


def _loudness(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).astype(np.float64)
    return np.asarray(np.sqrt((frames**2).mean(axis=1)))


def test_speed_change_scales_samples_and_phonemes_alike() -> None:
    spoken = _syllables()
    fast = augment.change_speed(spoken, 50)
    assert len(fast.samples) == pytest.approx(len(spoken.samples) * 40 / 50, abs=2)
    assert fast.events[3].start == pytest.approx(spoken.events[3].start * 0.8)
    assert fast.events[3].symbol == "a"


@pytest.mark.parametrize("seed", range(8))
def test_augmented_voice_is_loud_where_its_phonemes_are(seed: int) -> None:
    varied = augment.augment_voice(_syllables(), np.random.default_rng(seed))
    loudness = _loudness(varied.samples)
    centres = [int((e.start + e.end) / 2 * 100) for e in varied.events]
    pauses = [int((e.start - 0.25 * (e.end - e.start)) * 100) for e in varied.events]
    assert np.median(loudness[centres]) > 2 * np.median(loudness[pauses])
    assert np.isfinite(varied.samples).all()
    assert np.sqrt(np.mean(varied.samples**2)) == pytest.approx(0.08, rel=0.02)


def test_analysis_and_synthesis_are_inverse() -> None:
    samples = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    rebuilt = augment._istft(augment._stft(samples), len(samples))
    assert len(rebuilt) == len(samples)
    np.testing.assert_allclose(rebuilt[256:-256], samples[256:-256], atol=1e-5)


def test_envelope_finds_a_resonance() -> None:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(16000)
    radius, angle = 0.97, 2 * np.pi * 1500 / 16000
    out = np.zeros_like(noise)
    for i in range(2, len(out)):
        out[i] = noise[i] + 2 * radius * np.cos(angle) * out[i - 1] - radius**2 * out[i - 2]
    envelope = augment._lpc_envelope(out.astype(np.float32), 100)
    peak = envelope[20:80].mean(axis=0).argmax() * 16000 / 512
    assert peak == pytest.approx(1500, abs=80)
    stretched = augment._warp(envelope, np.full_like(envelope, 1.15))[20:80].mean(axis=0).argmax() * 16000 / 512
    assert stretched == pytest.approx(1725, abs=80)


def test_reverberation_keeps_the_direct_sound_in_place() -> None:
    click = np.zeros(8000, np.float32)
    click[3000] = 1.0
    room = augment.add_room(click, np.random.default_rng(2))
    assert np.abs(room).argmax() == 3000
    assert np.abs(room[:3000]).max() < 1e-6
    assert np.abs(room[3100:4000]).max() > 0


def test_silence_stays_silent() -> None:
    assert not augment.unit_level(np.zeros(100, np.float32)).any()


def _bank(count: int = 3) -> SpeechBank:
    return make_bank([pack_utterance(f"voice{i}", _syllables(4 + i)) for i in range(count)])


def test_bank_round_trip(tmp_path: Path) -> None:
    bank = _bank()
    save_bank(bank, tmp_path / "bank.safetensors")
    read = load_bank(tmp_path / "bank.safetensors")
    assert read.voices == ("voice0", "voice1", "voice2")
    for index in range(len(bank)):
        np.testing.assert_array_equal(read.utterance(index)[0], bank.utterance(index)[0])
        np.testing.assert_allclose(read.utterance(index)[1], bank.utterance(index)[1], atol=1e-3)
        assert len(read.utterance(index)[0]) == 640 * len(read.utterance(index)[1])


def test_damaged_bank_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"bank\.safetensors"):
        load_bank(path)
    with pytest.raises(TrainingError, match="empty"):
        make_bank([])


def test_clips_are_reproducible_and_open_only_where_there_is_sound() -> None:
    bank = _bank()
    opened = 0
    for seed in range(20):
        samples, mouth = compose(bank, np.random.default_rng(seed), 200)
        again, _ = compose(bank, np.random.default_rng(seed), 200)
        np.testing.assert_array_equal(samples, again)
        assert samples.shape == (128000,)
        assert mouth.shape == (200, 4)
        assert samples.dtype == mouth.dtype == np.float32
        energy = (samples.reshape(200, 640) ** 2).mean(axis=1)
        assert (energy[mouth[:, 0] > 0.5] > 0).all()
        opened += int((mouth[:, 0] > 0.5).any())
    assert opened >= 15


def test_some_clips_start_with_exact_silence() -> None:
    bank = _bank()
    leads = []
    for seed in range(24):
        samples, mouth = compose(bank, np.random.default_rng(seed), 120)
        lead = int(np.flatnonzero(samples)[0]) // 640 if samples.any() else 120
        assert not (mouth[:lead, 0] > 0.5).any()
        leads.append(lead)
    assert sum(10 < lead < 120 for lead in leads) >= 4


def test_held_out_voices_are_never_trained_on() -> None:
    assert not set(HELD_OUT_LANGUAGES) & set(TRAINING_LANGUAGES)
    assert not set(HELD_OUT_VARIANTS) & set(TRAINING_VARIANTS)
    rng = np.random.default_rng(0)
    trained = {random_voice(rng) for _ in range(300)}
    assert len(trained) > 200
    assert not any(f"{language}+" in voice for language in HELD_OUT_LANGUAGES for voice in trained)
    assert not any(voice.endswith(f"+{variant}") for variant in HELD_OUT_VARIANTS for voice in trained)


def test_text_follows_the_script_of_the_language() -> None:
    rng = np.random.default_rng(0)
    assert all(not any("a" <= c <= "z" for c in random_text(rng, "ru")) for _ in range(10))
    assert len(random_text(rng, "en-us", words=5).split()) == 5


def test_a_sentence_that_a_voice_cannot_say_is_left_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def speak(text: str, voice: FestivalVoice, stretch: float) -> Utterance:
        tried.append(text)
        if len(tried) < 3:
            raise TrainingError("no recording of these sounds", hint="try other words")
        samples = np.sin(np.arange(16000) * 0.2).astype(np.float32) * 0.3
        return Utterance(samples, (PhonemeEvent(0.1, 0.5, "a"), PhonemeEvent(0.5, 0.6, "m")))

    monkeypatch.setattr(bank_module, "speak_festival", speak)
    spoken = speak_one(3, festival_share=1.0)
    assert len(set(tried)) == 3
    assert len(spoken) >= 2
    assert {voice for voice, _, _ in spoken} <= {voice.name for voice in TRAINING_VOICES}


def test_a_voice_that_never_speaks_ends_the_bank_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(text: str, voice: FestivalVoice, stretch: float) -> Utterance:
        raise TrainingError("no recording of these sounds", hint="try other words")

    monkeypatch.setattr(bank_module, "speak_festival", speak)
    with pytest.raises(TrainingError, match="no recording"):
        speak_one(3, festival_share=1.0)
