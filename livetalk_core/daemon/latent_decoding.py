"""Latents of any Wan video, decoded piece by piece with all ranks; a piece can be asked for again after a restart."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, NumericalError
from ..models.vae import GROUP_LATENTS, WanVideoVAE
from ..parallel.groups import Groups
from ..parallel.vae_tiles import TiledVAE
from .worker_messages import OpenDecode


def map_latents(descriptor: int, shape: list[int]) -> Tensor:
    """The float32 tensor in a descriptor's memory; closes the descriptor.

    The pages are shared until somebody here writes to them, which nobody does.
    """
    try:
        size = 4 * int(np.prod(shape, dtype=np.int64))
        memory = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)
    return torch.from_numpy(np.frombuffer(memory, np.float32).reshape(shape))


class LatentDecoding:
    """One decoding.

    Args:
        vae: Of all ranks.
        groups: The world.
        command: What is to be decoded.
        latents: [B,C,T,h,w] float32 on the CPU.

    Attributes:
        pieces: How many there are, over all videos.

    Raises:
        ConfigError: other channels than the VAE's, or slots too small for a latent frame.
        NumericalError: latents that are not finite.
    """

    def __init__(self, vae: WanVideoVAE, groups: Groups, command: OpenDecode, latents: Tensor) -> None:
        self._vae, self._latents, self._normalised = vae, latents, command.normalised
        self._coder = TiledVAE(WanVideoVAE(vae.vae).to(vae.device), groups) if command.tiled else vae
        batch, channels, frames, height, width = latents.shape
        if channels != vae.config.z_dim:
            raise ConfigError(
                f"The latents have {channels} channels, this VAE decodes {vae.config.z_dim}.",
                "Give Wan video latents [B,16,T,h,w].", setting="latents",
            )  # fmt: skip
        if not latents.isfinite().all():
            raise NumericalError("The latents hold NaN or infinity.", "Check what made them.")
        stride, time = vae.config.scale_factor_spatial, vae.config.scale_factor_temporal
        room = command.slot_bytes // (3 * height * width * stride**2)
        if room < (1 if frames == 1 else time):
            raise ConfigError(
                f"A slot holds {room} frames of {width * stride}x{height * stride}, one latent frame makes {time}.",
                "Announce the size of the decoded pictures, and 4 frames or more.", setting="frames",
            )  # fmt: skip
        self._group = max(1, min(GROUP_LATENTS, room // time))
        counts = vae.group_frames(frames, self._group)
        self._lengths = counts * batch
        self.pieces = len(self._lengths)
        self._next = 0
        self._running: Iterator[Tensor | None] = iter(())

    def first_frame(self, piece: int) -> int:
        """Number of a piece's first frame."""
        return sum(self._lengths[:piece])

    def piece(self, number: int) -> Tensor | None:
        """uint8 frames [F,H,W,3] of a piece on rank 0, None on the others; collective.

        Every piece continues the one before it: asked for out of turn, all before it are decoded again.
        """
        if number != self._next or number == 0:
            self._running, self._next = self._decode(), 0
        while True:
            frames = next(self._running)
            self._next += 1
            if self._next > number:
                return frames

    def _decode(self) -> Iterator[Tensor | None]:
        for video in self._latents.split(1):
            own = video.to(self._vae.device)
            raw = self._vae.unnormalise(own) if self._normalised else own.to(self._vae.dtype)
            yield from self._coder.decode_frames(raw, self._group)
