"""Per-video-frame features of speech from any wav2vec2 encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Wav2Vec2Model

from ..errors import ConfigError


def normalise(samples: Tensor) -> Tensor:
    """Zero mean and unit variance along the last axis, as the published feature extractor does."""
    centred = samples - samples.mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + 1e-7)


def audio_features(model: Wav2Vec2Model, samples: Tensor, frames: int) -> Tensor:
    """Hidden states of all encoder layers at the video frame rate.

    The convolutional features (50 per second at 16 kHz) are interpolated linearly, end points aligned, to
    `frames` positions before the projection and the transformer, so that the transformer itself runs at
    video rate.

    Args:
        samples: [B, S] 16 kHz samples in the model's dtype, normalised if the checkpoint was trained so.
        frames: number of video frames that the S samples span.

    Returns: [B, frames, layers, channels].

    Raises:
        ConfigError: `samples` is not [B, S] or too short for the convolutions, or `frames` < 1.
    """
    if samples.ndim != 2 or frames < 1:
        raise ConfigError(
            f"audio of shape {tuple(samples.shape)} cannot give {frames} frames of features",
            hint="pass samples [batch, samples] and a positive number of frames",
        )
    shortest = _receptive_field(model)
    if samples.shape[1] < shortest:
        raise ConfigError(
            f"{samples.shape[1]} samples are too few for the audio encoder", hint=f"pass at least {shortest}"
        )
    convolved = model.feature_extractor(samples)
    resampled = functional.interpolate(convolved, size=frames, mode="linear", align_corners=True)
    projected, _ = model.feature_projection(resampled.transpose(1, 2))
    return torch.stack(_layer_states(model.encoder, projected), dim=2)


def _layer_states(encoder: nn.Module, projected: Tensor) -> list[Tensor]:
    """The output of every layer; that of the last one as the encoder returns it, with the final norm if it has one.

    Taken by hooks: since transformers 5 the encoder itself no longer collects them.
    """
    states: list[Tensor] = []

    def record(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(record) for layer in encoder.get_submodule("layers").children()]
    try:
        last: Tensor = encoder(projected).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    return [*states[:-1], last]


def _receptive_field(model: Wav2Vec2Model) -> int:
    field, stride = 1, 1
    for kernel, step in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
        field += (kernel - 1) * stride
        stride *= step
    return field
