"""Means over the frames that are generated, and the distribution matching gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mean(values: Tensor, frames: Tensor) -> Tensor:
    """Mean of [B,C,T,h,w] over the latent frames that count, per clip [B].

    Args:
        values: What is averaged.
        frames: Weights that broadcast against it: which frames, or which positions, count.
    """
    weights = frames.expand_as(values)
    return (values * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1e-6)


def matching_gradient(student: Tensor, fake: Tensor, real: Tensor, frames: Tensor) -> Tensor:
    """(x0_fake - x0_real) / mean |x0_student - x0_real| (the paper's stage 2); the mean is per clip.

    Args:
        student, fake, real: Clean latents [B,C,T,h,w]: the student's, and what fake score and teacher make of them.
        frames: As for `frame_mean`.
    """
    distance = frame_mean((student - real).abs(), frames).clamp(min=1e-6)
    return (fake - real) / distance.view(-1, 1, 1, 1, 1)


def surrogate(student: Tensor, gradient: Tensor, frames: Tensor) -> Tensor:
    """A loss whose gradient with respect to `student` is `gradient`, up to the mean over frames; [B]."""
    target = (student - gradient).detach()
    return 0.5 * frame_mean(torch.square(student - target), frames)
