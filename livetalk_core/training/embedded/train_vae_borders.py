"""Teach the VAE's decoder to continue where the previous chunk ended: decoder only, so latents stay what they are.

Every chunk is decoded afresh, so frame 5 of a chunk follows frame 32 of the one before it with far less history behind
it. Here the end of one chunk and the start of the next are decoded side by side and must change as the true frames do.

Recipe: `python -m livetalk_core.training.embedded.train_vae_borders --clips DIR --cache DIR --vae DIR --out DIR`
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from ...config import ChunkGeometry
from ...models.vae import WanVideoVAE
from .clips import ClipStore, open_clips
from .latent_cache import LatentCache, as_video, open_cache
from .run_state import Budget, MetricLog, MovingAverage, cosine, logger
from .train_vae import region_weights

_GEOMETRY = ChunkGeometry()
# Latent frames decoded with gradient: the last two of a chunk (8 frames) and the first three of the next (9 frames).
_TAIL, _HEAD = 2, 3
METRICS = ["loss", "picture", "border", "overlap", "psnr", "share"]


@dataclass(frozen=True)
class BorderTraining:
    """Knobs of the run."""

    minutes: float = 20.0
    learning_rate: float = 4e-4
    edge_weight: float = 0.5
    square_weight: float = 2.0
    border_weight: float = 2.0
    overlap_weight: float = 0.5
    average_decay: float = 0.99
    batch: int = 1
    seed: int = 0


def border_loss(
    vae: WanVideoVAE, latents: Tensor, video: Tensor, weights: Tensor, config: BorderTraining
) -> tuple[Tensor, Tensor]:
    """Loss of one clip pair.

    Args:
        vae: Decoder in training.
        latents: Un-normalised latents of both chunks [2,16,T,h,w].
        video: The clip [1,3,61,H,W].
        weights: Loss weight of every pixel.
        config: Weights of the terms.

    Returns:
        The loss and [picture, border, overlap, mean square error].
    """
    stride, motion = _GEOMETRY.temporal_stride, _GEOMETRY.motion_frames
    tail_frames, head_frames = _TAIL * stride, 1 + (_HEAD - 1) * stride
    with torch.autocast("cpu", torch.bfloat16):
        tail = vae.decode_tail(latents[:1], _TAIL).float()
        head = vae.decode_raw(latents[1:, :, :_HEAD]).float()
    start = _GEOMETRY.slice_frames
    tail_error = tail - video[:, :, _GEOMETRY.frames - tail_frames : _GEOMETRY.frames]
    head_error = head - video[:, :, start : start + head_frames]
    both = torch.cat([tail_error, head_error], dim=2)
    weighted = both * weights
    edges = weighted.diff(dim=-1).abs().mean() + weighted.diff(dim=-2).abs().mean()
    picture = weighted.abs().mean() + config.edge_weight * edges + config.square_weight * (both * weighted).mean()
    # What a viewer sees pass from frame to frame, the border included; equal errors on both sides cancel.
    shown = torch.cat([tail_error, head_error[:, :, motion:]], dim=2)
    border = (shown.diff(dim=2) * weights).abs()
    overlap = (head_error[:, :, 1:motion] - tail_error[:, :, -(motion - 1) :]).abs().mean()
    jump = border[:, :, tail_frames - 1].mean()
    loss = picture + config.border_weight * (jump + 0.5 * border.mean()) + config.overlap_weight * overlap
    facts = torch.stack([picture, jump, overlap, both.square().mean()]).detach()
    return loss, facts


def train_borders(clips: ClipStore, cache: LatentCache, vae_folder: Path, out: Path, config: BorderTraining) -> None:
    """Run for the budget and write the averaged VAE to `out`."""
    vae = WanVideoVAE(AutoencoderKLWan.from_pretrained(vae_folder))
    vae.vae.encoder.requires_grad_(False)
    vae.vae.quant_conv.requires_grad_(False)
    parameters = [p for p in vae.vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    average, budget = MovingAverage(vae.vae, config.average_decay), Budget(config.minutes)
    log = MetricLog(out / "metrics.jsonl", active=True)
    rng, weights, step = np.random.default_rng(config.seed), region_weights(2.0), 0
    while budget.share < 1:
        optimizer.zero_grad(set_to_none=True)
        for clip in rng.integers(len(cache), size=config.batch):
            video = as_video(clips.frames[clip : clip + 1], torch.float32)
            loss, facts = border_loss(vae, cache.chunks[clip].float(), video, weights, config)
            torch.autograd.backward(loss / config.batch)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / 30) * cosine(budget.share)
        optimizer.step()
        average.update()
        step += 1
        psnr = torch.tensor(10 * math.log10(4 / float(facts[3])))
        log.add(torch.stack([loss.detach(), *facts[:3], psnr, torch.tensor(budget.share)]))
        if step % 50 == 0:
            log.write(METRICS, step=step, minutes=round(budget.spent / 60, 2))
    vae.vae.load_state_dict(average.state)
    vae.vae.save_pretrained(out, safe_serialization=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=BorderTraining.minutes)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    config = BorderTraining(minutes=options.minutes, seed=options.seed)
    train_borders(open_clips(options.clips), open_cache(options.cache), options.vae, options.out, config)


if __name__ == "__main__":
    main()
