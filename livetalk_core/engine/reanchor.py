"""Retrospective correction: the motion latents are made anew when a chunk has drifted from its anchor.

The frames that were shown stay; what changes is what the next chunk continues from. A short window is put together
from the reference picture, clean, and the motion latents of the last chunk borders, noised to `renoise`. The model
denoises it as it denoises a first chunk, looking at the reference; its end is decoded, corrected and encoded like the
end of any chunk. The published code has no such step: there the model learns in training to correct itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..retrospective import match_color, motion_latents
from ..sampling import TRAINING_STEPS, StepStart, motion_buffer, renoise, sample
from .constants import StreamConstants
from .state import StreamState

FIRST_DRAW = 1 << 16
"""The first of the re-anchoring's own draws of noise in a chunk, beyond those of any sampler."""


def last_borders(constants: StreamConstants, state: StreamState, motion: Tensor) -> Tensor:
    """Motion latents [1,16,lookback*m,h,w] of the last chunk borders, oldest first; before there are as many, the
    oldest is repeated, so that all windows of a stream have one size.

    Args:
        constants: The stream.
        state: Before the chunk.
        motion: Motion latents [1,16,m,h,w] that the chunk ends with.
    """
    known = [tensor for tensor in (state.history, state.motion) if tensor is not None]
    borders = torch.cat([*(tensor.to(motion.device) for tensor in known), motion], dim=2)
    length = constants.config.correction.lookback * motion.shape[2]
    missing = max(0, length - borders.shape[2]) // motion.shape[2]
    return torch.cat([borders[:, :, : motion.shape[2]]] * missing + [borders], dim=2)[:, :, -length:]


def next_history(constants: StreamConstants, state: StreamState) -> Tensor | None:
    """What the state after a chunk keeps of the borders before it: with its own `motion` and that of the chunk to come
    they are `lookback` borders."""
    kept = constants.config.correction.lookback - 2
    if kept <= 0 or state.motion is None:
        return None
    known = [tensor for tensor in (state.history, state.motion) if tensor is not None]
    return torch.cat(known, dim=2)[:, :, -kept * state.motion.shape[2] :]


def reanchor(
    constants: StreamConstants, chunk: int, borders: Tensor, windows: Tensor, before: StepStart | None = None
) -> Tensor:
    """Motion latents [1,16,m,h,w] for the next chunk, made from those of the last borders.

    Args:
        constants: The stream.
        chunk: Number of the chunk that has ended.
        borders: Result of `last_borders`.
        windows: Audio windows [1,F,2*context+1,layers,channels] of that chunk.
        before: Called before every denoising step; may raise to leave.
    """
    bundle, geometry = constants.bundle, constants.config.geometry
    clean = torch.cat([constants.first_motion, borders.to(constants.first_motion.dtype)], dim=2).float()
    shape, length = tuple(clean.shape), clean.shape[2]
    velocity = constants.velocity(
        # A window may be longer than a chunk. The last border's own sound is at the end; the others' mouths are not
        # used.
        _last_rows(windows, 1 + (length - 1) * geometry.temporal_stride),
        constants.y.index_select(2, torch.arange(length, device=clean.device).clamp_max(constants.y.shape[2] - 1)),
    )

    def draw(index: int) -> Tensor:
        return constants.noise.draw(chunk, FIRST_DRAW + index, shape).to(bundle.device)

    levels = _levels(constants)
    buffer, mask = motion_buffer(constants.first_motion, length)
    latents = sample(velocity, renoise(clean, draw(0), levels[0]), levels, buffer, mask, draw, before=before)
    # The causal decoder codes one latent frame in front of the motion latents as a picture.
    end = latents[:, :, -geometry.motion_latents - 1 :].to(bundle.dtype)
    video = bundle.vae.decode(end)[:, :, -geometry.motion_frames :]
    video = match_color(video, constants.color, constants.config.correction.color_strength)
    return motion_latents(bundle.vae.encode, video, geometry.motion_frames).to(bundle.dtype)


def _levels(constants: StreamConstants) -> Tensor:
    """Noise levels from `renoise` down: the sampler's own below it, and 0."""
    first = constants.levels.new_tensor([constants.config.correction.renoise * TRAINING_STEPS])
    return torch.cat([first, constants.levels[constants.levels < first]])


def _last_rows(windows: Tensor, count: int) -> Tensor:
    """The last `count` windows in time; the first is repeated where there are fewer."""
    rows = torch.arange(windows.shape[1] - count, windows.shape[1], device=windows.device)
    return windows.index_select(1, rows.clamp_min(0))
