"""Audio features: equal to the library's own forward where both are defined, for both published layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from livetalk_core.errors import ConfigError
from livetalk_core.models.wav2vec2 import audio_features, normalise

pytestmark = pytest.mark.unit


def _model(norm: str, stable: bool, attention: str) -> Wav2Vec2Model:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 8, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=stable,
        attn_implementation=attention,
    )
    return Wav2Vec2Model(config).eval()


@pytest.mark.parametrize(("norm", "stable"), [("group", False), ("layer", True)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_without_resampling_it_is_the_plain_forward(norm: str, stable: bool, attention: str) -> None:
    model = _model(norm, stable, attention)
    samples = torch.randn(2, 16000)
    frames = model.feature_extractor(samples).shape[-1]
    plain = model(samples, output_hidden_states=True)
    hooks = [len(layer._forward_hooks) for layer in model.encoder.layers]
    features = audio_features(model, samples, frames)
    assert [len(layer._forward_hooks) for layer in model.encoder.layers] == hooks
    assert features.shape == (2, frames, 2, 16)
    # Releases differ on whether the last of the hidden states has the final norm; the last state always has it.
    expected = torch.stack([*plain.hidden_states[1:-1], plain.last_hidden_state], dim=2)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_resampling_is_linear_with_aligned_ends() -> None:
    model = _model("group", False, "sdpa")
    samples = torch.randn(1, 12800)
    convolved = model.feature_extractor(samples)[0].T.numpy()
    frames = 20
    positions = np.linspace(0, len(convolved) - 1, frames)
    knots = np.arange(len(convolved))
    expected = np.stack([np.interp(positions, knots, channel) for channel in convolved.T], axis=1)
    projected, _ = model.feature_projection(torch.from_numpy(expected).float()[None])
    last = model.encoder(projected).last_hidden_state
    torch.testing.assert_close(audio_features(model, samples, frames)[:, :, -1], last, rtol=0, atol=1e-5)


@torch.no_grad()
def test_eager_and_sdpa_agree() -> None:
    eager, sdpa = _model("group", False, "eager"), _model("group", False, "sdpa")
    sdpa.load_state_dict(eager.state_dict())
    samples = torch.randn(1, 9600)
    torch.testing.assert_close(
        audio_features(eager, samples, 15), audio_features(sdpa, samples, 15), rtol=0, atol=1e-5
    )


def test_normalise_is_the_feature_extractors() -> None:
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.03 + 0.01
    expected = Wav2Vec2FeatureExtractor(do_normalize=True)(samples, sampling_rate=16000).input_values[0]
    np.testing.assert_allclose(normalise(torch.from_numpy(samples)).numpy(), expected, atol=1e-5)


def test_normalise_keeps_silence() -> None:
    assert not normalise(torch.zeros(1, 100)).any()


@pytest.mark.parametrize(("shape", "frames"), [((16000,), 10), ((1, 16000), 0), ((1, 100), 3)])
def test_impossible_requests_are_refused(shape: tuple[int, ...], frames: int) -> None:
    with pytest.raises(ConfigError):
        audio_features(_model("group", False, "sdpa"), torch.zeros(shape), frames)
