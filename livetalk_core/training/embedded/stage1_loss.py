"""Loss of stage 1 of the embedded model: flow matching, on the truth or on the model's own estimates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...sampling import TRAINING_STEPS
from .stage1_batch import BatchMaker, Stage1Batch
from .stage1_model import Student


def stage1_loss(
    student: Student, batch: Stage1Batch, noise: BatchMaker, temporal_weight: float, look_back: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted velocity error on the new frames.

    Args:
        student: In training.
        batch: What it sees.
        noise: Where noise is drawn.
        temporal_weight: Of the error's change over time.
        look_back: Whether the sampler's levels are met on the student's own estimates.

    Returns:
        The loss and its parts: errors of the velocity, of its change over time, of the clean latents.
    """
    level = batch.level.view(-1, 1, 1, 1, 1)
    stream, audio = student.condition(batch.pictures, batch.windows)
    base = _own_estimate(student, batch, noise, stream, audio) if look_back else batch.clean
    noisy = batch.paste(torch.lerp(base, noise.normal(*base.shape), level))
    velocity = student.transformer(noisy, batch.y, batch.level * TRAINING_STEPS, stream, audio)
    # (x_t - x_0) / t is the velocity where x_t comes from the true x_0, and points to it from anywhere else.
    error = velocity - (noisy - batch.clean) / level.clamp(min=0.05)
    new = batch.weights
    total = new.expand_as(error).sum()
    flow = (error.square() * new).sum() / total
    clean = error * level
    change = (clean[:, :, 1:] - clean[:, :, :-1]).square() * new[:, :, 1:]
    temporal = change.sum() / total
    parts = {"velocity": flow, "temporal": temporal, "clean": (clean.square() * new).sum() / total}
    return flow + temporal_weight * temporal, {name: part.detach() for name, part in parts.items()}


@torch.no_grad()
def _own_estimate(student: Student, batch: Stage1Batch, noise: BatchMaker, stream: Any, audio: Any) -> Tensor:
    """Where the level has one before it: the model's estimate from there, which the sampler noises again."""
    previous = batch.previous.view(-1, 1, 1, 1, 1)
    noisy = batch.paste(torch.lerp(batch.clean, noise.normal(*batch.clean.shape), previous))
    velocity = student.transformer(noisy, batch.y, batch.previous * TRAINING_STEPS, stream, audio)
    estimate = noisy - previous * velocity
    return torch.where(previous > batch.level.view(-1, 1, 1, 1, 1), estimate, batch.clean)
