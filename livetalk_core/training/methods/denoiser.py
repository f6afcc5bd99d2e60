"""A network with everything it is conditioned on, called once per noise level."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...models.transformer import LiveTalkTransformer3DModel
from ...sampling import denoise_step


@dataclass(frozen=True)
class Conditioning:
    """What the clips of a batch are generated from.

    Attributes:
        y: Mask and reference latents [B,20,T,h,w].
        clip_features: Image encoder states [B,n,clip_dim].
        context: Text encoder states [B,L,text_dim].
        windows: Audio windows [B,F,window,layers,channels].
    """

    y: Tensor
    clip_features: Tensor
    context: Tensor
    windows: Tensor

    def without_text(self, null: Tensor, dropped: Tensor | None = None) -> Conditioning:
        """With the empty prompt's states [1,L,text_dim] in the clips marked by bool [B]; None: in all."""
        return replace(self, context=_where(dropped, null.to(self.context), self.context))

    def without_speech(self, dropped: Tensor | None = None) -> Conditioning:
        """With zeros in place of the audio features."""
        return replace(self, windows=_where(dropped, torch.zeros_like(self.windows), self.windows))


class Denoiser(nn.Module):
    """The transformer as one call from conditioning to velocity, so that shards and gradients stay within it."""

    def __init__(self, transformer: LiveTalkTransformer3DModel) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        """Velocity of noisy latents [B,16,T,h,w] at levels 0..1000, [B] or [1]; float32."""
        model = self.transformer
        stream = model.encode_stream(given.context, given.clip_features, defer=True)
        audio = model.encode_audio(given.windows, defer=True)
        result: Tensor = model(latents, given.y, level, stream, audio)
        return result


def clean_estimate(denoiser: nn.Module, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
    """The network's estimate of the clean latents, float32; `level` as for `Denoiser`."""
    return denoise_step(latents, denoiser(latents, level, given), spread(level))


def spread(values: Tensor) -> Tensor:
    """[B] -> [B,1,1,1,1]."""
    return values.view(-1, 1, 1, 1, 1)


def _where(dropped: Tensor | None, empty: Tensor, full: Tensor) -> Tensor:
    if dropped is None:
        return empty.expand_as(full)
    return torch.where(dropped.view(-1, *(1,) * (full.ndim - 1)), empty, full)
