"""The Wan video VAE: the library's class and weights, run in the form that is fastest on this device.

`WanVideoVAE` walks the layers of a `diffusers.AutoencoderKLWan` itself: a whole group of frames at a time,
channels-last, with the convolution form of `vae_layers`. The function is the library's (and the published one's) up to
summation order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanAttentionBlock, WanResample
from torch import Tensor, nn

from ..errors import CheckpointError
from .vae_layers import (
    CausalHistory,
    PlaneOperations,
    WholePlane,
    activated,
    causal_conv,
    channels_last,
    choose_form,
    interleaved,
    planar_conv,
    plane_attention,
    repeat_last,
    upsampled,
)

# Latent frames coded in one go: enough to fill the kernels, few enough to bound the memory.
GROUP_LATENTS = 4


class WanVideoVAE(nn.Module):
    """Encode and decode video with an `AutoencoderKLWan`.

    Args:
        vae: The library's module with its weights; its parameters are used in place.
        plane: How operations across a plane are done (one rank, or a spatial split).
    """

    mean: Tensor
    inv_std: Tensor

    def __init__(self, vae: AutoencoderKLWan, plane: PlaneOperations | None = None) -> None:
        super().__init__()
        if vae.config.is_residual:
            raise CheckpointError("The VAE is of the residual kind (Wan2.2).", "Use the Wan2.1 VAE.", key="is_residual")
        self.vae: Any = vae
        self.plane: PlaneOperations = plane or WholePlane()
        self.patch: int = vae.config.patch_size or 1
        channels_last(vae)
        shape = (1, -1, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(vae.config.latents_mean).view(shape), persistent=False)
        inv_std = 1.0 / torch.tensor(vae.config.latents_std)
        self.register_buffer("inv_std", inv_std.view(shape), persistent=False)

    @property
    def config(self) -> Any:
        """The library module's configuration."""
        return self.vae.config

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        dtype: torch.dtype = next(self.vae.parameters()).dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.vae.parameters()).device
        return device

    def encode(self, video: Tensor, tail: int = 0) -> Tensor:
        """Video [B,3,F,H,W] in [-1,1], F + tail = 1 + 4n -> normalised latents [B,16,1+n,h,w] (the mean, no sampling).

        The last frame stands `tail` more times: the result is that of the whole video, the cost is less.
        """
        return (self.moments(video, tail).chunk(2, dim=1)[0] - self._like(self.mean)) * self._like(self.inv_std)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B,16,T,h,w] -> video [B,3,1+4(T-1),H,W] clamped to [-1,1]."""
        return self.decode_raw(self.unnormalise(latents)).clamp(-1.0, 1.0)

    def moments(self, video: Tensor, tail: int = 0) -> Tensor:
        """Video -> un-normalised mean and log-variance [B,32,T,h,w]; see `encode`."""
        x = _patchify(video.to(self.dtype), self.patch).contiguous(memory_format=torch.channels_last_3d)
        history, stride = CausalHistory(self.plane, tail=tail), 4
        # What repeats need not be cut: few of its frames are computed where they are large.
        group = GROUP_LATENTS * stride
        cuts = [] if tail else range(1 + group - stride, x.shape[2], group)
        bounds = [0, *cuts, x.shape[2]]
        parts = [self._encode_group(x[:, :, a:b], history) for a, b in pairwise(bounds)]
        return self._conv(self.vae.quant_conv, torch.cat(parts, dim=2), history)

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Un-normalised latents -> video, not clamped (training needs the gradient outside [-1,1])."""
        return torch.cat(list(self.decode_groups(latents)), dim=2)

    def unnormalise(self, latents: Tensor) -> Tensor:
        """Normalised latents in any number format -> un-normalised ones in the VAE's."""
        return latents.to(self.dtype) / self._like(self.inv_std) + self._like(self.mean)

    def decode_groups(self, latents: Tensor, group: int = GROUP_LATENTS) -> Iterator[Tensor]:
        """Un-normalised latents [B,16,T,h,w] -> the frames of `decode_raw` in order, `group` latents at a time."""
        history = CausalHistory(self.plane)
        x = latents.contiguous(memory_format=torch.channels_last_3d)
        x = self._conv(self.vae.post_quant_conv, x, history)
        for first in range(0, x.shape[2], group):
            part = self._decode_group(x[:, :, first : first + group], history, first == 0)
            yield _unpatchify(part, self.patch)

    @torch.no_grad()
    def decode_frames(self, latents: Tensor, group: int = GROUP_LATENTS) -> Iterator[Tensor | None]:
        """Un-normalised latents [1,16,T,h,w] -> uint8 frames [F,H,W,3] in order, for pictures to be shown.

        On several ranks the others than rank 0 get None.
        """
        for part in self.decode_groups(latents, group):
            yield to_uint8(part)[0].permute(1, 2, 3, 0)

    def group_frames(self, latent_frames: int, group: int = GROUP_LATENTS) -> list[int]:
        """How many video frames each part of `decode_groups` has."""
        stride = self.config.scale_factor_temporal
        bounds = [*range(0, latent_frames, group), latent_frames]
        return [stride * (b - a) - (stride - 1 if a == 0 else 0) for a, b in pairwise(bounds)]

    def decode_tail(self, latents: Tensor, count: int) -> Tensor:
        """The frames of the last `count` latents, not clamped; the ones before give history but no gradient."""
        history = CausalHistory(self.plane)
        x = latents.contiguous(memory_format=torch.channels_last_3d)
        with torch.no_grad():
            past = self._conv(self.vae.post_quant_conv, x[:, :, :-count], history)
            self._decode_group(past, history, True)
        x = self._conv(self.vae.post_quant_conv, x[:, :, -count:], history)
        return _unpatchify(self._decode_group(x, history, False), self.patch)

    def _like(self, buffer: Tensor) -> Tensor:
        return buffer.to(self.device, self.dtype)

    def _conv(self, layer: nn.Conv3d, x: Tensor, history: CausalHistory) -> Tensor:
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        return causal_conv(layer, x, history, choose_form(x.device, dtype))

    def _resnet(self, block: Any, x: Tensor, history: CausalHistory) -> Tensor:
        shortcut = block.conv_shortcut
        skip = x if isinstance(shortcut, nn.Identity) else self._conv(shortcut, x, history)
        x = self._conv(block.conv1, activated(block.norm1, x), history)
        out = self._conv(block.conv2, activated(block.norm2, x), history)
        return repeat_last(skip, out.shape[2] - skip.shape[2]) + out

    def _middle(self, block: Any, x: Tensor, history: CausalHistory) -> Tensor:
        x = self._resnet(block.resnets[0], x, history)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            x = self._resnet(resnet, plane_attention(attention, x, history.plane), history)
        return x

    def _tail(self, coder: Any, x: Tensor, history: CausalHistory) -> Tensor:
        return self._conv(coder.conv_out, activated(coder.norm_out, x), history)

    def _encode_group(self, x: Tensor, history: CausalHistory) -> Tensor:
        encoder = self.vae.encoder
        x = self._conv(encoder.conv_in, x, history)
        for block in encoder.down_blocks:
            if isinstance(block, WanResample):
                x = self._downsample(block, x, history)
            elif isinstance(block, WanAttentionBlock):
                x = plane_attention(block, x, history.plane)
            else:
                x = self._resnet(block, x, history)
        x = self._tail(encoder, self._middle(encoder.mid_block, x, history), history)
        return history.unfold(x, history.tail)

    def _decode_group(self, x: Tensor, history: CausalHistory, first: bool) -> Tensor:
        decoder = self.vae.decoder
        x = self._middle(decoder.mid_block, self._conv(decoder.conv_in, x, history), history)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = self._resnet(resnet, x, history)
            for upsampler in block.upsamplers or []:
                x = self._upsample(upsampler, x, history, first)
        return self._tail(decoder, x, history)

    def _downsample(self, block: Any, x: Tensor, history: CausalHistory) -> Tensor:
        x = planar_conv(block.resample[1], history.plane.pad(x, 0, 1, 0, 1))
        if block.mode != "downsample3d":
            return x
        # The very first frame passes without the time convolution; later pairs also see the frame before them.
        past = history.before(block.time_conv)
        length = x.shape[2] + history.tail
        # As many frames as the first output needs that sees nothing but the last one.
        x = history.unfold(x, 3 - x.shape[2] % 2)
        history.remember(block.time_conv, x[:, :, -1:])
        joined = x if past is None else torch.cat([past, x], dim=2)
        if joined.shape[2] == 1:
            return joined
        halved = F.conv3d(joined, block.time_conv.weight, block.time_conv.bias, stride=(2, 1, 1))
        if past is not None:
            return halved
        history.tail = (length + 1) // 2 - halved.shape[2] - 1
        return torch.cat([x[:, :, :1], halved], dim=2)

    def _upsample(self, block: Any, x: Tensor, history: CausalHistory, first: bool) -> Tensor:
        if block.mode == "upsample3d":
            # The first latent frame becomes one video frame and leaves no history behind.
            head, rest = (x[:, :, :1], x[:, :, 1:]) if first else (None, x)
            if rest.shape[2]:
                rest = interleaved(self._conv(block.time_conv, rest, history))
            x = rest if head is None else torch.cat([head, rest], dim=2) if rest.shape[2] else head
        return planar_conv(block.resample[1], upsampled(history.plane.pad(x, 1, 1, 1, 1)))


def to_uint8(video: Tensor) -> Tensor:
    """[-1,1] (beyond is clipped) -> 0..255, rounded."""
    return ((video.float().clamp(-1.0, 1.0) + 1) * 127.5 + 0.5).to(torch.uint8)


def _patchify(x: Tensor, patch: int) -> Tensor:
    """Fold patch x patch pixels into channels, in the library's order."""
    if patch == 1:
        return x
    x = x.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))
    # [B,C,F,h,p(row),w,q(column)] -> [B,C,q,p,F,h,w]
    return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def _unpatchify(x: Tensor, patch: int) -> Tensor:
    """Inverse of `_patchify`."""
    if patch == 1:
        return x
    x = x.unflatten(1, (-1, patch, patch))
    # [B,C,q,p,F,h,w] -> [B,C,F,h,p,w,q]
    return x.permute(0, 1, 4, 5, 3, 6, 2).flatten(3, 4).flatten(4, 5)
