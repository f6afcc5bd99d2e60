"""The student's own chunks, one after the other, as the engine would make them; gradient in one step of the last one.

This is the multi-step retrospective self-correction of the paper: a chunk is conditioned on what the student itself
made before, decoded, colour matched and encoded again, so that it meets its own errors while it can still learn from
them. Stochastic truncation bounds the memory: only one denoising step of the last chunk carries a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...config import ChunkGeometry
from ...models.vae import WanVideoVAE
from ...retrospective import color_reference, match_color, motion_latents
from ...sampling import Velocity, denoise_step, motion_buffer, paste_motion, renoise, sample, timesteps
from ..data.batches import Batch
from ..recipes import RolloutConfig
from ..trainer.draws import Purpose
from .denoiser import Conditioning

_DRAWS_PER_CHUNK = 2048


@dataclass(frozen=True)
class LastChunk:
    """What a rollout leaves to be judged.

    Attributes:
        clean: The student's estimate of the clean latents at the exit step [B,16,T,h,w], motion frames included.
        motion: Motion latents in a buffer [B,16,T,h,w].
        known: Which latent frames are motion frames, bool [T].
        given: Conditioning of the chunk.
        exit: Number of the step that carries the gradient.
    """

    clean: Tensor
    motion: Tensor
    known: Tensor
    given: Conditioning
    exit: int


class Rollout:
    """Rolls a student out over the chunks of a batch.

    Args:
        vae: Decodes chunks and encodes motion frames.
        geometry: Chunks.
        config: Sampler, source of motion latents, colour match.
    """

    def __init__(self, vae: WanVideoVAE, geometry: ChunkGeometry, config: RolloutConfig) -> None:
        self.vae, self.geometry, self.config = vae, geometry, config
        self.levels = timesteps(config.sampler, vae.device)

    def last_chunk(self, student: nn.Module, batch: Batch, chunks: int, exit_step: int) -> LastChunk:
        """Roll out `chunks` chunks; gradient only in step `exit_step` of the last, and only if it is enabled."""
        last = chunks - 1
        with torch.no_grad():
            known_latents = self._true_motion(batch, last) if self.config.motion == "clip" else None
            if known_latents is None:
                known_latents = self.first_motion(batch)
                for chunk in range(last):
                    latents = self.sample_chunk(student, batch, chunk, known_latents)
                    known_latents = self.following_motion(batch, self.vae.decode(latents))
            motion, known = motion_buffer(known_latents.float(), batch.latents.shape[3])
            given = chunk_conditioning(batch, last)
            velocity = _velocity(student, given)
            start = self._noise(batch, last, 0)
            if exit_step:
                before = self.levels[: exit_step + 1]
                clean = sample(velocity, start, before, motion, known, lambda i: self._noise(batch, last, i))
                start = renoise(clean, self._noise(batch, last, exit_step), self.levels[exit_step])
            noisy = paste_motion(start, motion, known)
        level = self.levels[exit_step : exit_step + 1]
        return LastChunk(denoise_step(noisy, velocity(noisy, level), level), motion, known, given, exit_step)

    @torch.no_grad()
    def sample_chunk(self, student: nn.Module, batch: Batch, chunk: int, motion: Tensor) -> Tensor:
        """All steps of one chunk after motion latents [B,16,m,h,w]: clean latents [B,16,T,h,w], as the engine's."""
        buffer, known = motion_buffer(motion.float(), batch.latents.shape[3])
        velocity = _velocity(student, chunk_conditioning(batch, chunk))
        start = self._noise(batch, chunk, 0)
        return sample(velocity, start, self.levels, buffer, known, lambda i: self._noise(batch, chunk, i))

    @torch.no_grad()
    def following_motion(self, batch: Batch, video: Tensor) -> Tensor:
        """Motion latents of the chunk after decoded video [B,3,F,H,W]."""
        frames = video[:, :, -self.geometry.motion_frames :]
        corrected = match_color(frames, color_reference(batch.pictures.to(frames)), self.config.color_strength)
        return motion_latents(self.vae.encode, corrected, self.geometry.motion_frames)

    def first_motion(self, batch: Batch) -> Tensor:
        """Motion latent of the first chunk [B,16,1,h,w]."""
        if self.config.first_motion == "clip":
            return batch.latents[:, 0, :, :1]
        return batch.y[:, self.geometry.temporal_stride :, :1]

    def _true_motion(self, batch: Batch, chunk: int) -> Tensor:
        """Teacher-forced: the true video's motion latents of a chunk."""
        if not chunk:
            return self.first_motion(batch)
        return batch.latents[:, chunk, :, : self.geometry.motion_latents]

    def _noise(self, batch: Batch, chunk: int, draw: int) -> Tensor:
        shape = tuple(batch.latents.shape[2:])
        index = chunk * _DRAWS_PER_CHUNK + draw
        return batch.draws.normal(Purpose.ROLLOUT, shape, index).to(batch.latents.device)


def chunk_conditioning(batch: Batch, chunk: int) -> Conditioning:
    """What chunk `chunk` of a batch is generated from."""
    return Conditioning(batch.y, batch.clip_features, batch.context, batch.windows[:, chunk])


def _velocity(student: nn.Module, given: Conditioning) -> Velocity:
    def velocity(latents: Tensor, level: Tensor) -> Tensor:
        result: Tensor = student(latents, level, given)
        return result

    return velocity
