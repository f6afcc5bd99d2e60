"""Audio pre-training: resuming, export, streaming read-out and the scores it is judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

from livetalk_core.errors import TrainingError
from livetalk_core.models.wav2vec2 import normalise
from livetalk_core.training.embedded.audio_evaluation import (
    closures_reached,
    correlate_at_best_lag,
    loudness_track,
    score_voices,
)
from livetalk_core.training.embedded.audio_loss import closures_of, mouth_loss
from livetalk_core.training.embedded.audio_model import MouthReader, export_audio_encoder, load_reader, read_mouth
from livetalk_core.training.embedded.timed_run import TimedRun
from livetalk_core.training.embedded.train_audio import AudioTask, AudioTraining
from livetalk_core.training.speech.bank import SpeechBank, make_bank, pack_utterance
from livetalk_core.training.speech.espeak import Utterance
from livetalk_core.training.speech.held_out import EvaluationUtterance
from livetalk_core.training.speech.visemes import PhonemeEvent
from livetalk_core.training.trainer.ranks import join_ranks

pytestmark = pytest.mark.unit


def _bank() -> SpeechBank:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(32000).astype(np.float32) * 0.05
    events = (PhonemeEvent(0.2, 0.6, "a"), PhonemeEvent(0.6, 0.7, "m"), PhonemeEvent(0.7, 1.2, "i"))
    return make_bank([pack_utterance("noise", Utterance(noise, events))])


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    """Dropout included."""
    config = AudioTraining(batch=1, bfloat16=False)
    with join_ranks("cpu") as ranks:

        def new_run() -> TimedRun:
            return TimedRun(AudioTask(_bank(), tmp_path, config), tmp_path, ranks, config.pace, config)

        straight, resumed = new_run(), new_run()
        straight.update(0.1)
        straight.save()
        resumed.resume()
        assert resumed.step == 1
        for run in (straight, resumed):
            run.update(0.2)
    for name, value in straight.average.state.items():
        torch.testing.assert_close(resumed.average.state[name], value, rtol=0, atol=1e-7)


def test_exported_folder_is_a_transformers_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader = MouthReader().eval()
    export_audio_encoder(reader, tmp_path / "audio_encoder")
    assert Wav2Vec2FeatureExtractor.from_pretrained(tmp_path / "audio_encoder").do_normalize
    model = Wav2Vec2Model.from_pretrained(tmp_path / "audio_encoder").float()
    assert model.config.hidden_size == 96
    again = load_reader(tmp_path / "audio_encoder")
    samples = normalise(torch.randn(1, 32000))
    with torch.no_grad():
        torch.testing.assert_close(again(samples, 50), reader(samples, 50), rtol=0, atol=0.02)
    (tmp_path / "audio_encoder" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(TrainingError):
        load_reader(tmp_path / "audio_encoder")


def test_reading_is_causal_in_slices_of_28_frames() -> None:
    torch.manual_seed(0)
    reader = MouthReader().eval()
    samples = np.random.default_rng(1).standard_normal(60 * 640).astype(np.float32) * 0.1
    changed = samples.copy()
    changed[28 * 640 :] = 0.0
    first, second = read_mouth(reader, samples), read_mouth(reader, changed)
    assert first.shape == (60, 4)
    np.testing.assert_allclose(first[:28], second[:28], atol=1e-6)
    assert np.abs(first[28:] - second[28:]).max() > 1e-4


def test_loss_is_zero_only_for_the_truth() -> None:
    mouth = torch.rand(2, 50, 4)
    mouth[:, 20, 0] = 0.0
    sure = (closures_of(mouth) * 2 - 1) * 30
    exact = torch.cat([mouth, sure[..., None]], dim=-1)[:, :, None].expand(-1, -1, 3, -1)
    assert float(mouth_loss(exact, mouth)) < 1e-6
    assert float(mouth_loss(exact + 0.1, mouth)) > 0.1


@pytest.mark.parametrize("shift", [-2, 0, 3])
def test_best_lag_is_found(shift: int) -> None:
    truth = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    score = correlate_at_best_lag(np.roll(truth, shift) * 0.3 + 1, truth)
    assert score.lag == shift
    assert score.correlation == pytest.approx(1.0, abs=1e-5)
    assert correlate_at_best_lag(np.ones(200, np.float32), truth).correlation == 0.0


def test_scores_of_the_truth_are_perfect_and_loudness_is_not() -> None:
    rng = np.random.default_rng(0)
    closures = np.array([0.5, 1.3, 2.7])
    mouth = rng.uniform(0.4, 1.0, (100, 4)).astype(np.float32)
    mouth[(closures * 25).astype(int), 0] = 0.0
    samples = rng.standard_normal(64000).astype(np.float32)
    spoken = EvaluationUtterance("x/y/0", "x", "y", samples, mouth, closures)
    score = score_voices([spoken], lambda utterance: utterance.mouth[:, 0])["x/y"]
    assert score["correlation"] == pytest.approx(1.0, abs=1e-5)
    assert score["closures"] == 1.0
    assert score["loudness"] < 0.5
    assert closures_reached(np.ones(100, np.float32), closures) == 0
    assert loudness_track(samples).shape == (100,)
