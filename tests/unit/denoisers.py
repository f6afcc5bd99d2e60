"""Denoisers of the tiny model and batches for them, for tests of the training methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from livetalk_core.config import SamplerConfig
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data.batches import Batch, PreparedBatches
from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Conditioning, Denoiser
from livetalk_core.training.trainer.draws import Draws

SAMPLER = SamplerConfig(steps=2)


def draw(data: PreparedSet, clips: int = 2, chunks: int = 1, iteration: int = 0) -> Batch:
    return PreparedBatches(data, torch.device("cpu")).draw(Draws(0, iteration, range(clips)), chunks)


def denoiser(bundle: ModelBundle, seed: int | None = None) -> Denoiser:
    """A copy of the model's transformer; with a seed its weights are disturbed."""
    copy = type(bundle.transformer)(**{k: v for k, v in bundle.transformer.config.items() if not k.startswith("_")})
    copy.load_state_dict(bundle.transformer.state_dict())
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Denoiser(copy.requires_grad_(True))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


class Watched(nn.Module):
    """Counts calls of a denoiser, and those that carry a gradient; keeps what it was last given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls, self.with_gradient = inner, 0, 0
        self.seen: list[tuple[Tensor, Tensor, Conditioning]] = []

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        self.calls += 1
        self.with_gradient += torch.is_grad_enabled()
        self.seen.append((latents.detach().clone(), level, given))
        result: Tensor = self.inner(latents, level, given)
        return result
