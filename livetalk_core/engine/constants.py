"""What stays the same over a stream: reference latents, text and image keys, colour, first motion."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .. import telemetry
from ..audio import AudioEncoder
from ..config import ChunkGeometry, StreamConfig
from ..errors import ConfigError
from ..models.bundle import ModelBundle
from ..models.encoders import encode_text, image_features
from ..models.transformer import StreamConditioning
from ..models.wav2vec2 import audio_features, normalise
from ..retrospective import Appearance, ColorReference, appearance, color_reference
from ..sampling import NoiseSource, Velocity, timesteps
from .condition_image import condition_image
from .conditions import ConditionCache, Conditions
from .state import StreamIdentity, digest


@dataclass(frozen=True)
class EncodedClip:
    """A whole clip of sound as features (whole mode).

    Attributes:
        features: [S,layers,channels], one row per video frame up to the end of the last chunk.
        samples: Length of the sound itself.
        frames: Video frames over the sound itself.
        digest: Fingerprint of the samples.
    """

    features: Tensor
    samples: int
    frames: int
    digest: str


@dataclass(frozen=True)
class StreamConstants:
    """Everything `step` reads and never writes.

    Attributes:
        bundle: The model.
        config: Settings of the stream.
        noise: Where random numbers come from.
        audio: Samples to windows.
        clip: The encoded sound in whole mode.
        y: Mask and reference latents [1,20,T,h,w].
        conditioning: Text and image keys and values.
        first_motion: Motion latent of the first chunk [1,16,1,h,w].
        color: Colour statistics of the reference.
        appearance: What the reference looks like, to measure drift against.
        levels: Noise levels of the steps.
        picture: The reference as the model sees it, [1,3,1,H,W].
        identity: What a saved state has to agree with.
    """

    bundle: ModelBundle
    config: StreamConfig
    noise: NoiseSource
    audio: AudioEncoder
    clip: EncodedClip | None
    y: Tensor
    conditioning: StreamConditioning
    first_motion: Tensor
    color: ColorReference
    appearance: Appearance
    levels: Tensor
    picture: Tensor
    identity: StreamIdentity

    def velocity(self, windows: Tensor, y: Tensor) -> Velocity:
        """The model as the sampler calls it.

        Args:
            windows: Audio windows [1,F,2*context+1,layers,channels] of T latent frames.
            y: Mask and reference latents [1,20,T,h,w].
        """
        transformer = self.bundle.transformer
        audio = transformer.encode_audio(windows)

        def velocity(latents: Tensor, level: Tensor) -> Tensor:
            result: Tensor = transformer(latents, y, level, self.conditioning, audio)
            return result

        return velocity


@torch.no_grad()
def stream_constants(
    bundle: ModelBundle,
    config: StreamConfig,
    picture: Image.Image,
    noise: NoiseSource,
    clip: EncodedClip | None = None,
    context: Tensor | None = None,
    clip_features: Tensor | None = None,
    cache: ConditionCache | None = None,
) -> StreamConstants:
    """Compute the constants of a stream, as the published `prepare_params` does.

    Args:
        bundle: The model.
        config: Settings.
        picture: Reference picture, RGB.
        noise: Source of random numbers.
        clip: Encoded sound; needed in whole mode, refused in stream mode.
        context: Text features [1,L,text_dim] in place of encoding the prompt.
        clip_features: Image features [1,n,clip_dim] in place of encoding the picture.
        cache: Of this model: a stream with the picture and prompt of the one before costs little.

    Raises:
        ConfigError: settings that this model cannot follow.
        ImageError: a picture that cannot be used.
    """
    check_fits(bundle, config)
    _require_clip(config, clip)
    _require_features("context", context, bundle.transformer.config.text_dim)
    _require_features("clip_features", clip_features, bundle.transformer.config.clip_dim)
    pixels = condition_image(picture, config.width, config.height, bundle.dtype)
    overrides = [t for t in (context, clip_features) if t is not None]
    identity = StreamIdentity(
        bundle.revision, str(bundle.dtype).removeprefix("torch."), config,
        digest(pixels, *overrides), clip.digest if clip else "",
    )  # fmt: skip
    pixels = pixels.to(bundle.device)
    key = (identity.conditions, config.prompt, config.geometry, context is None, clip_features is None)
    conditions = (cache or ConditionCache()).get(
        repr(key), lambda: _conditions(bundle, config, pixels, context, clip_features)
    )
    y = conditions.y
    return StreamConstants(
        bundle=bundle,
        config=config,
        noise=noise,
        audio=audio_encoder(bundle, config),
        clip=clip,
        y=y,
        conditioning=conditions.conditioning,
        # The causal encoder codes the first frame as a picture of its own: this is the reference alone.
        first_motion=y[:, config.geometry.temporal_stride :, :1],
        color=color_reference(pixels),
        appearance=appearance(pixels),
        levels=timesteps(config.sampler, bundle.device),
        picture=pixels,
        identity=identity,
    )


def _conditions(
    bundle: ModelBundle, config: StreamConfig, pixels: Tensor, context: Tensor | None, clip_features: Tensor | None
) -> Conditions:
    context = _text_context(bundle, config.prompt) if context is None else context
    if clip_features is None:
        clip_features = image_features(bundle.image_encoder, pixels[:, :, 0])
    given = (_on(bundle, tensor) for tensor in (context, clip_features))
    return Conditions(reference_latents(bundle, pixels, config.geometry), bundle.transformer.encode_stream(*given))


def reference_latents(bundle: ModelBundle, picture: Tensor, geometry: ChunkGeometry) -> Tensor:
    """Mask and latents of the reference followed by mid-grey frames: y [B,4+16,T,h,w].

    Args:
        bundle: The model, for its VAE.
        picture: [B,3,1,H,W] in [-1,1].
        geometry: Chunk length.
    """
    grey = min(1, geometry.frames - 1)
    video = torch.nn.functional.pad(picture, (0, 0, 0, 0, 0, grey))
    latents = bundle.vae.encode(video, tail=geometry.frames - 1 - grey).to(bundle.dtype)
    batch, _, frames, height, width = latents.shape
    mask = latents.new_zeros(batch, geometry.temporal_stride, frames, height, width)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def audio_encoder(bundle: ModelBundle, config: StreamConfig) -> AudioEncoder:
    """The audio path of a stream: the model's audio network behind loudness and windows."""
    network = bundle.audio_encoder

    def features(samples: Tensor, frames: int) -> Tensor:
        waveform = samples.to(network.device)
        return audio_features(network, normalise(waveform) if bundle.audio_normalise else waveform, frames)

    return AudioEncoder(features, config.geometry, config.audio)


def check_fits(bundle: ModelBundle, config: StreamConfig) -> None:
    """Raise ConfigError if the model cannot follow the settings."""
    model, vae, geometry = bundle.transformer.config, bundle.vae.config, config.geometry
    step = geometry.spatial_stride * max(model.patch_size[1:])
    facts = (
        ("audio.context", config.audio.context, (model.audio_window - 1) // 2),
        ("geometry.temporal_stride", geometry.temporal_stride, model.vae_scale),
        ("geometry.temporal_stride", geometry.temporal_stride, vae.scale_factor_temporal),
        ("geometry.spatial_stride", geometry.spatial_stride, vae.scale_factor_spatial),
        ("width modulo the model's patch", config.width % step, 0),
        ("height modulo the model's patch", config.height % step, 0),
    )
    for name, value, needed in facts:
        if value != needed:
            raise ConfigError(
                f"{name} is {value}, the model {bundle.name} needs {needed}.",
                "Use the model's own setting.",
                setting=name,
            )


def _require_clip(config: StreamConfig, clip: EncodedClip | None) -> None:
    """Whole mode has an encoded clip, stream mode none."""
    if (config.audio.mode == "whole") != (clip is not None):
        given = "with" if clip else "without"
        raise ConfigError(
            f"Audio mode {config.audio.mode!r} was asked for {given} an encoded clip.",
            "Encode the clip first in mode 'whole', give none in mode 'stream'.", setting="audio.mode",
        )  # fmt: skip


def _require_features(name: str, features: Tensor | None, width: int) -> None:
    """Given features have to be as wide as those of the encoder whose place they take."""
    if features is not None and (features.ndim != 3 or features.shape[0] != 1 or features.shape[2] != width):
        raise ConfigError(
            f"{name} has the shape {list(features.shape)}, this model needs [1, rows, {width}].",
            "Use the encoder that belongs to the model, or leave it out.", setting=name,
        )  # fmt: skip


def _text_context(bundle: ModelBundle, prompt: str) -> Tensor:
    """Features of the prompt, or of the model's own where it is empty; zeros for a model without text."""
    model = bundle.transformer.config
    text_len: int = model.text_len
    if bundle.text_encoder is not None and bundle.tokenizer is not None:
        return encode_text(bundle.text_encoder, bundle.tokenizer, prompt or bundle.defaults.prompt, text_len)
    if prompt and prompt != bundle.defaults.prompt:
        telemetry.emit(
            "prompt_ignored", logging.WARNING, model=bundle.name, reason="the model has no text encoder"
        )
    return torch.zeros(1, text_len, model.text_dim)


def _on(bundle: ModelBundle, tensor: Tensor) -> Tensor:
    return tensor.to(bundle.device, bundle.dtype)
