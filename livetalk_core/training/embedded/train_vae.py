"""Train the embedded model's video VAE on drawn people: image crops first, then longer and larger clips.

Recipe: `torchrun --nproc-per-node 2 -m livetalk_core.training.embedded.train_vae --clips DIR --out DIR --minutes 55`
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from torch import Tensor, nn

from ...models.vae import WanVideoVAE
from ..avatars.avatar import eye_boxes, jaw_box
from .clips import SIZE, ClipStore, open_clips
from .muon import Muon
from .run_state import (
    ResumableRun,
    average_gradients,
    cosine,
    join_ranks,
    logger,
)

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 32,
    "dim_mult": [1, 1, 2],
    "z_dim": 16,
    "num_res_blocks": 1,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "temperal_downsample": [True, True],
    "scale_factor_spatial": 8,
}
METRICS = ["loss", "l1", "psnr", "kl", "gradient", "share"]


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


def new_vae(seed: int) -> AutoencoderKLWan:
    """A VAE that starts as an image VAE: older temporal taps zero, time up- and down-sampling as repeat and mean.

    The first video batches then continue from what the image stage learnt.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(**VAE_CONFIG)
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3:
                if name.endswith("time_conv"):
                    _start_time_conv(layer)
                else:
                    layer.weight[:, :, :2] = 0
                    layer.weight[:, :, 2] *= 1.7
    return vae


def _start_time_conv(layer: Any) -> None:
    out_channels, channels = layer.weight.shape[:2]
    identity = torch.eye(channels)
    layer.weight.zero_()
    layer.bias.zero_()
    if out_channels == 2 * channels:
        layer.weight[:, :, 2, 0, 0] = torch.cat([identity, identity]) + 0.02 * torch.randn(out_channels, channels)
    else:
        for tap in range(3):
            layer.weight[:, :, tap, 0, 0] = identity / 3 + 0.01 * torch.randn(channels, channels)


def region_weights(factor: float) -> Tensor:
    """Loss weight of every pixel [128,128]: `factor` on jaw and eyes, 1 elsewhere."""
    weights = torch.ones(SIZE, SIZE)
    for left, top, right, bottom in (jaw_box(SIZE), *eye_boxes(SIZE)):
        weights[top:bottom, left:right] = factor
    return weights


def random_crops(
    clips: ClipStore, weights: NDArray[np.float32], rng: np.random.Generator, batch: int, side: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Random crops [B,3,F,side,side] in [-1,1] and their loss weights [B,1,1,side,side]; half of them on the face."""
    videos, maps = [], []
    for _ in range(batch):
        clip, first = rng.integers(len(clips)), rng.integers(clips.frames.shape[1] - frames + 1)
        room = SIZE - side
        top, left = (int(rng.integers(room + 1)) for _ in range(2))
        if rng.random() < 0.5:
            top = int(np.clip(rng.normal(72 - side / 2, 14), 0, room))
            left = int(np.clip(rng.normal(64 - side / 2, 10), 0, room))
        window = (slice(top, top + side), slice(left, left + side))
        video, region = clips.frames[clip, first : first + frames][:, window[0], window[1]], weights[window]
        if rng.random() < 0.5:
            video, region = video[:, :, ::-1], region[:, ::-1]
        videos.append(video)
        maps.append(region)
    video_tensor = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)
    return video_tensor, torch.from_numpy(np.stack(maps).copy())[:, None, None]


def vae_loss(vae: WanVideoVAE, video: Tensor, weights: Tensor, config: VaeTraining) -> tuple[Tensor, Tensor]:
    """Reconstruction loss with edges and motion, plus KL; returns (loss, [l1, mse, kl])."""
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
    return loss, torch.stack([raw.abs().mean(), raw.square().mean(), kl]).detach()


class VaeTrainer:
    """The run: batches, update, averages, checkpoints every two minutes, resumable."""

    def __init__(self, clips: ClipStore, out: Path, config: VaeTraining) -> None:
        self.rank, self.world = join_ranks()
        self.clips, self.out, self.config = clips, out, config
        self.vae = WanVideoVAE(new_vae(config.seed))
        self.module = self.vae.vae
        matrices = [p for p in self.module.parameters() if p.dim() >= 4 and p.shape[0] > 8 and p[0].numel() > 8]
        chosen = {id(p) for p in matrices}
        rest = [p for p in self.module.parameters() if id(p) not in chosen]
        optimizers = [
            Muon(matrices, lr=config.learning_rate),
            torch.optim.AdamW(rest, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.state = ResumableRun(
            out, self.module, optimizers, decay=config.average_decay, minutes=config.minutes, active=self.rank == 0
        )
        self.weights = region_weights(config.region_weight).numpy()

    def run(self) -> None:
        """Train until the budget is spent, then export the averaged weights."""
        saved, share = self.state.budget.spent, self.state.budget.share
        rng = np.random.default_rng([self.config.seed, self.rank, self.state.step])
        torch.manual_seed(1000 * self.config.seed + self.rank + self.state.step)
        while share < 1:
            share = self._update(rng, share)
            if self.state.step % 50 == 0:
                self.state.log.write(METRICS, step=self.state.step, minutes=round(self.state.budget.spent / 60, 2))
            if self.rank == 0 and self.state.budget.spent - saved > 120:
                self.state.save(self.config)
                saved = self.state.budget.spent
        if self.rank == 0:
            self.state.save(self.config)
            self.export()

    def _update(self, rng: np.random.Generator, share: float) -> float:
        stage = next(s for s in STAGES if share < s.until)
        batch = max(1, stage.batch // self.world)
        video, weights = random_crops(self.clips, self.weights, rng, batch, stage.side, stage.frames)
        loss, parts = vae_loss(self.vae, video, weights, self.config)
        self.module.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = list(self.module.parameters())
        now = torch.tensor([self.state.budget.share])
        shared = average_gradients(parameters, torch.cat([now, loss.detach()[None], parts]))
        rate = self.config.learning_rate * min(1.0, (self.state.step + 1) / 50) * cosine(share)
        norm = self.state.update(rate)
        share = float(shared[0])
        psnr = 10 * math.log10(4 / max(1e-9, float(shared[3])))
        self.state.log.add(torch.tensor([shared[1], shared[2], psnr, shared[4], norm, share]))
        return share

    def export(self) -> None:
        """Write the averaged weights as a library model folder."""
        vae = AutoencoderKLWan(**VAE_CONFIG)
        vae.load_state_dict(self.state.average.state)
        vae.save_pretrained(self.out / "vae", safe_serialization=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=VaeTraining.minutes)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = VaeTrainer(
        open_clips(options.clips), options.out, VaeTraining(minutes=options.minutes, seed=options.seed)
    )
    if options.resume:
        trainer.state.resume()
    trainer.run()


if __name__ == "__main__":
    main()
