"""Timesteps, noise and the few-step loop: pure functions over a model function; for engine and training.

The published sampler estimates the clean latents at every step and noises them again to the next level
(`generate` there); it is not an Euler solver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .config import SamplerConfig

TRAINING_STEPS = 1000
_PUBLISHED_STEPS = {4: (1000.0, 750.0, 500.0, 250.0), 2: (1000.0, 500.0)}

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(latents [B,C,T,h,w], timestep [1] in 0..1000) -> velocity (noise - clean), float32 of the same shape."""

Draw = Callable[[int], Tensor]
"""Number of the draw (1, 2, ...) -> float32 normals of the latents' shape, on their device."""

StepStart = Callable[[int], None]
"""Called with the number of the step that would begin; may raise to leave."""

StepObserver = Callable[[int, Tensor, Tensor], None]
"""(step, latents given to the model, velocity it returned)."""


def timesteps(config: SamplerConfig, device: torch.device | str = "cpu") -> Tensor:
    """Noise levels of the steps and a final 0: float32 [steps + 1], falling from 1000.

    4 and 2 steps use the published lists, other numbers a straight line from 1000 to 1; then the time shift
    t -> shift*t / (1 + (shift-1)*t) for t in 0..1.
    """
    steps = _PUBLISHED_STEPS.get(config.steps)
    line = np.linspace(TRAINING_STEPS, 1, config.steps) if steps is None else steps
    # Float32 from here on, like the published tensors: the result has to agree to the last bit.
    raw = torch.tensor([*line, 0.0], dtype=torch.float32) / TRAINING_STEPS
    shifted = config.shift * raw / (1 + (config.shift - 1) * raw) * TRAINING_STEPS
    return shifted.to(device)


class NoiseSource(Protocol):
    """Where the random numbers of a stream come from."""

    def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normals for draw `index` of `chunk`: float32 on the CPU.

        Draw 0 is the initial latent, draw i the noise added after step i-1. The draw after the last step is
        multiplied by zero in the published code: its index stays reserved, it is never asked for.
        """
        ...


class PhiloxNoise:
    """Noise as a function of (seed, chunk, draw), the same on every rank, device and after every restart."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normals for one draw of one chunk; float32 on the CPU."""
        # The generator counts upwards in the lowest words, so chunk and draw sit in the highest ones:
        # streams of 2**128 blocks that never meet.
        counter = np.array([0, 0, index, chunk], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=self._seed, counter=counter))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


class RecordedNoise:
    """Noise that was recorded elsewhere, for comparing with another implementation.

    Args:
        draws: (chunk, draw) -> tensor, of any shape with the right number of elements.
    """

    def __init__(self, draws: Mapping[tuple[int, int], Tensor]) -> None:
        self._draws = draws

    def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """The recorded tensor in the shape asked for; KeyError if it was not recorded."""
        return self._draws[chunk, index].float().reshape(shape)


def paste_motion(latents: Tensor, motion: Tensor, mask: Tensor) -> Tensor:
    """Latents with the known latent frames in their place.

    Args:
        latents: [B,C,T,h,w].
        motion: [B,C,T,h,w]; only the frames under the mask matter.
        mask: bool [T]. Static mask and buffer let the first and all later chunks share one graph.
    """
    return torch.where(mask.view(1, 1, -1, 1, 1), motion.to(latents.dtype), latents)


def motion_buffer(motion: Tensor, latent_frames: int) -> tuple[Tensor, Tensor]:
    """Motion latents [B,C,m,h,w] -> (buffer [B,C,T,h,w] with zeros behind them, mask bool [T])."""
    known = motion.shape[2]
    buffer = torch.nn.functional.pad(motion, (0, 0, 0, 0, 0, latent_frames - known))
    return buffer, torch.arange(latent_frames, device=motion.device) < known


def denoise_step(latents: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """Estimate of the clean latents at noise level 0..1000; float32."""
    return latents - (level / TRAINING_STEPS) * velocity


def renoise(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Clean latents noised to `level` 0..1000."""
    share = level / TRAINING_STEPS
    return (1 - share) * clean + share * noise


def sample(
    velocity: Velocity,
    initial: Tensor,
    levels: Tensor,
    motion: Tensor,
    mask: Tensor,
    draw: Draw,
    observe: StepObserver | None = None,
    before: StepStart | None = None,
) -> Tensor:
    """Run the few-step sampler.

    Args:
        velocity: The model.
        initial: Draw 0 in the model's dtype, [B,C,T,h,w].
        levels: Result of `timesteps`, on the latents' device.
        motion: Known latents in a [B,C,T,h,w] buffer (`motion_buffer`); they stay clean at every level.
        mask: Which latent frames are known, bool [T].
        draw: Noise added after step i-1, by number i.
        observe: Sees every step.
        before: Sees the beginning of every step.

    Returns:
        Clean latents, float32 [B,C,T,h,w].
    """
    latents = paste_motion(initial, motion, mask)
    last = len(levels) - 2
    for step in range(last + 1):
        if before is not None:
            before(step)
        predicted = velocity(latents, levels[step : step + 1])
        if observe is not None:
            observe(step, latents, predicted)
        clean = denoise_step(latents, predicted, levels[step])
        # The last level is 0: the published draw times zero changes nothing and is not made.
        noised = clean if step == last else renoise(clean, draw(step + 1), levels[step + 1])
        latents = paste_motion(noised, motion, mask)
    return latents
