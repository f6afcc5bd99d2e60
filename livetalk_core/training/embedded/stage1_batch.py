"""What one step of stage 1 sees: chunks, their conditioning, noise levels and motion latents.

Source: reference formulation of stage 1 (clean motion latents, velocity target, time shift), with the levels of the
few-step sampler drawn often, because the embedded model is trained for it directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...config import SamplerConfig
from ...sampling import TRAINING_STEPS, timesteps
from .latent_cache import LatentCache, window_rows

# Latent rows and columns behind lips and eyes of the 16x16 grid, and how much more they count.
_MOUTH = (slice(8, 14), slice(4, 12), 3.0)
_EYES = (slice(4, 8), slice(3, 13), 1.6)


@dataclass(frozen=True)
class Stage1Options:
    """Shares and strengths of the random choices of a batch.

    `silent_audio` of the samples are given no sound (zeros), so that the model can guide a sampler as a teacher.
    `closure_weight` and `blink_weight` multiply the loss on mouths and eyes in frames that hold one.
    """

    sampler_levels: float = 0.65
    continuous_shift: float = 5.0
    silent_audio: float = 0.1
    closure_weight: float = 2.0
    blink_weight: float = 3.0
    single_motion: float = 0.35
    motion_noise: float = 0.2
    noisy_motion: float = 0.5
    own_motion: float = 0.5


@dataclass(frozen=True)
class Stage1Batch:
    """One batch; B clips.

    Attributes:
        clean: Target latents [B,16,T,h,w], normalised.
        y: Mask and reference latents [B,20,T,h,w].
        windows: Audio windows [B,33,5,layers,channels].
        pictures: Reference pictures [B,3,H,W] in [-1,1].
        motion: Latents pasted in the motion frames [B,16,T,h,w].
        known: Which latent frames are motion frames, float [B,1,T,1,1].
        level: Noise level t in 0..1, [B].
        previous: The sampler's level before `level` [B]; equal to it where there is none.
        weights: Loss weights [B,1,T,h,w], 0 on motion frames.
    """

    clean: Tensor
    y: Tensor
    windows: Tensor
    pictures: Tensor
    motion: Tensor
    known: Tensor
    level: Tensor
    previous: Tensor
    weights: Tensor

    def paste(self, latents: Tensor) -> Tensor:
        """Latents with the motion latents in their frames."""
        return torch.lerp(latents, self.motion, self.known)


@dataclass
class OwnMotion:
    """Motion latents that the model itself produced for the second chunk of some clips, the newest ones."""

    capacity: int
    latents: dict[int, Tensor] = field(default_factory=dict)

    def put(self, clip: int, latents: Tensor) -> None:
        """Remember the newest of a clip; the oldest of all go beyond the capacity."""
        self.latents.pop(clip, None)
        self.latents[clip] = latents
        if len(self.latents) > self.capacity:
            self.latents.pop(next(iter(self.latents)))


class BatchMaker:
    """Draws batches from the cache with a generator of its own.

    Latents are normalised by the cache's statistics, or by the given mean and standard deviation [16].
    """

    def __init__(
        self, cache: LatentCache, options: Stage1Options, seed: int, statistics: tuple[Tensor, Tensor] | None = None
    ) -> None:
        self.cache, self.options = cache, options
        mean, std = statistics or cache.statistics()
        self.mean, self.std = mean.view(16, 1, 1, 1), std.view(16, 1, 1, 1)
        self.random = torch.Generator().manual_seed(seed)
        self.rows = window_rows()
        self.levels = timesteps(SamplerConfig())[:-1] / TRAINING_STEPS

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.random)

    def normal(self, *shape: int) -> Tensor:
        """Standard normals of the batch's generator."""
        return torch.randn(*shape, generator=self.random)

    def normalised(self, latents: Tensor) -> Tensor:
        """Latents [...,16,T,h,w] with mean 0 and deviation 1, float32."""
        return (latents.float() - self.mean) / self.std

    def conditioning(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """y [B,20,T,h,w] and reference pictures [B,3,H,W] of these clips."""
        reference = self.normalised(self.cache.references[clips])
        mask = torch.zeros(len(clips), 4, *reference.shape[2:])
        mask[:, :, 0] = 1
        pictures = self.cache.pictures[clips].permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.cat([mask, reference], dim=1), pictures

    def windows(self, clips: Tensor, chunk: Tensor) -> Tensor:
        """Audio windows [B,33,5,layers,channels]."""
        return self.cache.features[clips, chunk].float()[:, self.rows]

    def draw(self, size: int, own: OwnMotion | None = None) -> Stage1Batch:
        """A random batch; with `own`, some second chunks start from the model's own motion latents."""
        clips = torch.randint(len(self.cache), (size,), generator=self.random)
        chunk = torch.randint(2, (size,), generator=self.random)
        owned: list[tuple[int, Tensor]] = []
        if own is not None and own.latents:
            stock = list(own.latents.items())
            for place in range(size):
                if float(self._uniform(1)) < self.options.own_motion:
                    clip, latents = stock[int(torch.randint(len(stock), (1,), generator=self.random))]
                    clips[place], chunk[place] = clip, 1
                    owned.append((place, latents))
        clean = self.normalised(self.cache.chunks[clips, chunk])
        count = torch.where(self._uniform(size) < self.options.single_motion, 1, 2)
        motion = self._motion(clean)
        for place, latents in owned:
            count[place] = 2
            motion[place, :, :2] = latents
        known = (torch.arange(clean.shape[2]) < count[:, None]).float().view(size, 1, -1, 1, 1)
        y, pictures = self.conditioning(clips)
        level, previous = self._levels(size)
        heard = (self._uniform(size) >= self.options.silent_audio).float()
        windows = self.windows(clips, chunk) * heard.view(-1, 1, 1, 1, 1)
        weights = (1 - known) * self._weights(clips, chunk)
        return Stage1Batch(clean, y, windows, pictures, motion, known, level, previous, weights)

    def _weights(self, clips: Tensor, chunk: Tensor) -> Tensor:
        """Lips and eyes count more than the rest, most of all where lips are pressed together and eyes close."""
        options = self.options
        closing = 1 + (options.closure_weight - 1) * self.cache.closures[clips, chunk].float()
        blinking = 1 + (options.blink_weight - 1) * self.cache.blinks[clips, chunk].float()
        weights = torch.ones(*closing.shape, *self.cache.chunks.shape[-2:])
        for (rows, columns, factor), marked in ((_MOUTH, closing), (_EYES, blinking)):
            weights[..., rows, columns] = factor * marked[..., None, None]
        return weights[:, None]

    def _motion(self, clean: Tensor) -> Tensor:
        """Clean latents, half of them slightly noisy: what the model is given later is not perfect either."""
        size = len(clean)
        strength = self._uniform(size, 1, 1, 1, 1) * self.options.motion_noise
        noisy = self._uniform(size, 1, 1, 1, 1) < self.options.noisy_motion
        return clean + self.normal(*clean.shape) * strength * noisy

    def _levels(self, size: int) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(self.levels), (size,), generator=self.random)
        uniform, shift = self._uniform(size), self.options.continuous_shift
        continuous = shift * uniform / (1 + (shift - 1) * uniform)
        discrete = self._uniform(size) < self.options.sampler_levels
        level = torch.where(discrete, self.levels[index], continuous)
        previous = torch.where(discrete & (index > 0), self.levels[(index - 1).clamp(min=0)], level)
        return level, previous
