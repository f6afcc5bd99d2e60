"""Teach the VAE's decoder to continue where the previous chunk ended: decoder only, so latents stay what they are.

Every chunk is decoded afresh, so frame 5 of a chunk follows frame 32 of the one before it with far less history behind
it. Here the end of one chunk and the start of the next are decoded side by side and must change as the true frames do.

Recipe: `python -m livetalk_core.training.embedded.train_vae_borders --clips DIR --cache DIR --vae DIR --out DIR`
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

from ...config import ChunkGeometry
from ...errors import TrainingError
from ...models.vae import WanVideoVAE
from ..trainer.ranks import join_ranks
from .clips import ClipStore, open_clips
from .command_line import add_run_options, reporting
from .latent_cache import LatentCache, as_video, open_cache
from .timed_run import Pace, TimedRun
from .train_vae import psnr
from .vae_crops import region_weights

_GEOMETRY = ChunkGeometry()
# Latent frames decoded with gradient: the last two of a chunk (8 frames) and the first three of the next (9 frames).
_TAIL, _HEAD = 2, 3


@dataclass(frozen=True)
class BorderTraining:
    """Knobs of the run."""

    minutes: float = 10.0
    learning_rate: float = 4e-4
    edge_weight: float = 0.5
    square_weight: float = 2.0
    border_weight: float = 2.0
    overlap_weight: float = 0.5
    average_decay: float = 0.99
    seed: int = 0

    @property
    def pace(self) -> Pace:
        """How the run moves."""
        return Pace(
            minutes=self.minutes, learning_rate=self.learning_rate, warm_up=30, average_decay=self.average_decay,
            seed=self.seed,
        )  # fmt: skip


def border_loss(
    vae: WanVideoVAE, latents: Tensor, video: Tensor, weights: Tensor, config: BorderTraining
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of one clip pair.

    Args:
        vae: Decoder in training.
        latents: Un-normalised latents of both chunks [2,16,T,h,w].
        video: The clip [1,3,61,H,W].
        weights: Loss weight of every pixel [H,W].
        config: Weights of the terms.

    Returns:
        The loss and what to log.
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
    facts = {"picture": picture, "border": jump, "overlap": overlap, "psnr": psnr(both.square().mean())}
    return loss, {name: value.detach() for name, value in facts.items()}


class BorderTask:
    """The decoder learns from both chunks of random clips.

    Args:
        clips: Drawn people.
        cache: Their latents.
        vae_folder: The VAE that encoded them.
        out: Gets the VAE.
        config: Knobs of the run.
    """

    def __init__(
        self, clips: ClipStore, cache: LatentCache, vae_folder: Path, out: Path, config: BorderTraining
    ) -> None:
        if len(clips) != len(cache):
            raise TrainingError(
                f"There are {len(clips)} clips, but latents of {len(cache)}.",
                "Run training.embedded.latent_cache again.",
            )
        self.clips, self.cache, self.out, self.config = clips, cache, out, config
        self.network = AutoencoderKLWan.from_pretrained(vae_folder)
        self.vae = WanVideoVAE(self.network)
        self.network.encoder.requires_grad_(False)
        self.network.quant_conv.requires_grad_(False)
        self.weights = region_weights(2.0)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.optimizers: list[torch.optim.Optimizer] = [adam]
        self.facts: dict[str, Any] = {}

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a random clip; see `Task.loss`."""
        clip = int(rng.integers(len(self.cache)))
        video = as_video(self.clips.frames[clip : clip + 1], torch.float32)
        return border_loss(self.vae, self.cache.chunks[clip].float(), video, self.weights, self.config)

    def export(self, average: dict[str, Tensor]) -> None:
        """Write the averaged VAE as a library model folder."""
        self.network.load_state_dict(average)
        self.network.save_pretrained(self.out, safe_serialization=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    add_run_options(parser, BorderTraining.minutes)
    options = parser.parse_args(arguments)
    config = BorderTraining(minutes=options.minutes, seed=options.seed)
    with reporting(), join_ranks("cpu") as ranks:
        clips, cache = open_clips(options.clips), open_cache(options.cache)
        task = BorderTask(clips, cache, options.vae, options.out, config)
        TimedRun(task, options.out, ranks, config.pace, config).run(options.resume)


if __name__ == "__main__":
    main()
