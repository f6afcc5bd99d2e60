"""The teacher's guidance: what speech and text add is exaggerated (the paper's dual guidance)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...models.bundle import ModelBundle
from ...models.transformer import AudioConditioning, LiveTalkTransformer3DModel, StreamConditioning
from .denoiser import Conditioning, clean_estimate

_LARGEST_SCALE = 20


def guidance_terms(
    given: Conditioning, null_context: Tensor, text: float, audio: float
) -> list[tuple[float, Conditioning]]:
    """Weights of the passes whose weighted sum is null + audio (no_text - null) + text (given - no_text).

    Passes without weight are left out; a model without text (every context is the null context) has no pass for it.
    """
    no_text = given.without_text(null_context)
    null = no_text.without_speech()
    if torch.equal(no_text.context, given.context):
        terms = [(audio, given), (1 - audio, null)]
    else:
        terms = [(text, given), (audio - text, no_text), (1 - audio, null)]
    return [(weight, passed) for weight, passed in terms if weight]


def guided_estimate(
    teacher: nn.Module,
    latents: Tensor,
    level: Tensor,
    given: Conditioning,
    null_context: Tensor,
    text: float,
    audio: float,
) -> Tensor:
    """The teacher's estimate of the clean latents under dual guidance; arguments as for `clean_estimate`.

    Args:
        null_context: Text states of the unconditional pass [1,L,text_dim].
        text, audio: Guidance scales; 1 is none.
    """
    terms = guidance_terms(given, null_context, text, audio)
    estimates = [weight * clean_estimate(teacher, latents, level, passed) for weight, passed in terms]
    return torch.stack(estimates).sum(0)


class GuidedTransformer(nn.Module):
    """A transformer as the engine calls it, whose velocity is null + scale (given - null): speech exaggerated.

    Both passes run as one batch. What a model without text gives is `guided_estimate` at every noise level, because
    the estimate of the clean latents is linear in the velocity.
    """

    def __init__(self, transformer: LiveTalkTransformer3DModel, scale: float) -> None:
        super().__init__()
        self.transformer, self.scale = transformer, scale

    @property
    def config(self) -> Any:
        """Of the transformer itself."""
        return self.transformer.config

    def encode_stream(self, context: Tensor, clip_features: Tensor) -> StreamConditioning:
        """As the transformer's; both passes share it."""
        return self.transformer.encode_stream(context, clip_features)

    def encode_audio(self, windows: Tensor) -> AudioConditioning:
        """Windows [1,F,window,layers,channels] of the speech, and zeros beside them as the second of a batch."""
        return self.transformer.encode_audio(torch.cat([windows, torch.zeros_like(windows)]))

    def forward(
        self, latents: Tensor, y: Tensor, timestep: Tensor, stream: StreamConditioning, audio: AudioConditioning
    ) -> Tensor:
        """Guided velocity of latents [1,C,T,h,w], float32.

        Raises:
            ConfigError: speech changes nothing, so there is nothing to exaggerate.
        """
        both: Tensor = self.transformer(latents.repeat(2, 1, 1, 1, 1), y.repeat(2, 1, 1, 1, 1), timestep, stream, audio)
        given, null = both[:1], both[1:]
        if torch.equal(given, null):
            raise ConfigError(
                "The model's output is the same with speech and without: it cannot be guided.",
                "Guide a model whose training left speech out now and then (stage 1).", setting="guidance",
            )  # fmt: skip
        return null + self.scale * (given - null)


def guided_bundle(bundle: ModelBundle, scale: float) -> ModelBundle:
    """The model with its speech exaggerated by `scale`; 1 is the model itself. For evaluation: twice the work.

    Raises:
        ConfigError: a scale that is none, or a model with text, whose guidance needs two scales.
    """
    if not (math.isfinite(scale) and 0 <= scale <= _LARGEST_SCALE):
        raise ConfigError(f"Guidance is {scale:g}.", f"Allowed: 0 to {_LARGEST_SCALE}; 1 is none.", setting="guidance")
    if scale == 1:
        return bundle
    if bundle.text_encoder is not None:
        raise ConfigError(
            f"{bundle.name} reads a text too; only models without text can be guided here.",
            "Leave guidance at 1.", setting="guidance",
        )  # fmt: skip
    return replace(bundle, transformer=cast(LiveTalkTransformer3DModel, GuidedTransformer(bundle.transformer, scale)))
