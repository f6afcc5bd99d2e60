"""Train the embedded model's video VAE on drawn people: image crops first, then longer and larger clips.

Recipe: `torchrun --nproc-per-node 2 -m livetalk_core.training.embedded.train_vae --clips DIR --out DIR --minutes 55`
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ...models.vae import WanVideoVAE
from ..trainer.ranks import Ranks, join_ranks
from .clips import ClipStore, open_clips
from .command_line import add_run_options, reporting
from .muon import Muon
from .timed_run import Pace, TimedRun
from .vae_crops import random_crops, region_weights
from .vae_model import VAE_CONFIG, new_vae


@dataclass(frozen=True)
class Stage:
    """Crops of one shape until this share of the budget: batch over all ranks, side in pixels, frames."""

    until: float
    batch: int
    side: int
    frames: int


STAGES = (Stage(0.34, 32, 64, 1), Stage(0.50, 8, 64, 5), Stage(0.72, 6, 80, 9), Stage(1.01, 2, 128, 17))


@dataclass(frozen=True)
class VaeTraining:
    """Knobs of the run."""

    minutes: float = 55.0
    learning_rate: float = 5e-3
    kl_weight: float = 2e-4
    gradient_weight: float = 0.5
    temporal_weight: float = 0.5
    square_weight: float = 2.0
    region_weight: float = 3.0
    average_decay: float = 0.995
    seed: int = 0

    @property
    def pace(self) -> Pace:
        """How the run moves."""
        return Pace(
            minutes=self.minutes, learning_rate=self.learning_rate, warm_up=50, average_decay=self.average_decay,
            seed=self.seed,
        )  # fmt: skip


def vae_loss(
    vae: WanVideoVAE, video: Tensor, weights: Tensor, config: VaeTraining
) -> tuple[Tensor, dict[str, Tensor]]:
    """Reconstruction loss with edges and motion, plus KL; returns it and what to log.

    Args:
        vae: In training.
        video: Crops [B,3,F,side,side] in [-1,1].
        weights: Of their pixels [B,1,1,side,side].
        config: Weights of the terms.
    """
    with torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = (part.float() for part in vae.moments(video).chunk(2, dim=1))
        log_variance = log_variance.clamp(-12, 4)
        latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        output = vae.decode_raw(latents)
    raw = output.float() - video
    error = raw * weights
    absolute, square = error.abs().mean(), (raw * error).mean()
    edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
    motion = (error[:, :, 1:] - error[:, :, :-1]).abs().mean() if error.shape[2] > 1 else 0.0
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = absolute + config.gradient_weight * edges + config.temporal_weight * motion
    loss = loss + config.square_weight * square + config.kl_weight * kl
    facts = {"l1": raw.abs().mean(), "psnr": psnr(raw.square().mean()), "kl": kl}
    return loss, {name: value.detach() for name, value in facts.items()}


def psnr(square: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of a mean square error of values in [-1,1]."""
    return 10 * torch.log10(4 / square.clamp(min=1e-9))


class VaeTask:
    """The VAE learns from random crops; their shape follows `STAGES`.

    Args:
        clips: Drawn people.
        out: Gets the folder `vae`.
        config: Knobs of the run.
        ranks: Which share the batch.
    """

    def __init__(self, clips: ClipStore, out: Path, config: VaeTraining, ranks: Ranks) -> None:
        self.clips, self.out, self.config, self.ranks = clips, out, config, ranks
        self.network = new_vae(config.seed)
        self.vae = WanVideoVAE(self.network)
        self.weights = region_weights(config.region_weight).numpy()
        self.optimizers = self._optimizers()
        self.facts: dict[str, Any] = {}

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the inner convolutions, AdamW for the rest."""
        parameters, rate = list(self.network.parameters()), self.config.learning_rate
        matrices = [p for p in parameters if p.dim() >= 4 and p.shape[0] > 8 and p[0].numel() > 8]
        chosen = {id(p) for p in matrices}
        rest = [p for p in parameters if id(p) not in chosen]
        return [Muon(matrices, lr=rate), torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a random batch; see `Task.loss`."""
        stage = next(s for s in STAGES if share < s.until)
        batch = max(1, stage.batch // self.ranks.world)
        video, weights = random_crops(self.clips, self.weights, rng, batch, stage.side, stage.frames)
        return vae_loss(self.vae, video, weights, self.config)

    def export(self, average: dict[str, Tensor]) -> None:
        """Write the averaged weights as a library model folder."""
        vae = AutoencoderKLWan(**VAE_CONFIG)
        vae.load_state_dict(average)
        vae.save_pretrained(self.out / "vae", safe_serialization=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    add_run_options(parser, VaeTraining.minutes)
    options = parser.parse_args(arguments)
    config = VaeTraining(minutes=options.minutes, seed=options.seed)
    with reporting(), join_ranks("cpu") as ranks:
        task = VaeTask(open_clips(options.clips), options.out, config, ranks)
        TimedRun(task, options.out, ranks, config.pace, config).run(options.resume)


if __name__ == "__main__":
    main()
