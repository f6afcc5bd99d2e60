"""Stage 1 of the embedded model: flow matching with clean motion latents on cached chunks of drawn people.

Recipe: `torchrun --nproc-per-node 2 -m livetalk_core.training.embedded.train_stage1 --cache DIR --vae DIR --out DIR`.
In the second part of the run the sampler's levels are trained on the model's own estimates ("look back"), in the last
part second chunks also start from motion latents that the model itself produced, decoded and encoded again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ...models.vae import WanVideoVAE
from ..trainer.ranks import Ranks, join_ranks
from .command_line import add_run_options, reporting
from .latent_cache import LatentCache, open_cache
from .muon import Muon
from .stage1_batch import BatchMaker, OwnMotion, Stage1Options
from .stage1_loss import stage1_loss
from .stage1_model import Student
from .stage1_rollout import first_chunk_motion
from .timed_run import Pace, TimedRun


@dataclass(frozen=True)
class Stage1Training:
    """Knobs of the run; the shares are of the time budget, the batch is that of all ranks."""

    minutes: float = 50.0
    batch: int = 8
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.02
    temporal_weight: float = 0.25
    average_decay: float = 0.996
    look_back_from: float = 0.62
    own_motion_from: float = 0.72
    own_motion_stock: int = 160
    seed: int = 0

    @property
    def pace(self) -> Pace:
        """How the run moves."""
        return Pace(
            minutes=self.minutes, learning_rate=self.learning_rate, schedule=constant_then_linear, warm_up=60,
            average_decay=self.average_decay, log_every=25, seed=self.seed,
        )  # fmt: skip


def constant_then_linear(share: float) -> float:
    """1 to half of the time, then linear to 3 %."""
    return min(1.0, (1 - share) / 0.5 * 0.97 + 0.03)


class Stage1Task:
    """The student learns from batches of cached chunks.

    Args:
        cache: Latents and audio features of all clips.
        vae_folder: The VAE that they were encoded with.
        out: Gets `transformer`, `image_encoder` and `vae` (its configuration with the latents' statistics).
        config: Knobs of the run.
        ranks: Which share the batch.
        start: Folder of an earlier run to go on from.
    """

    def __init__(
        self,
        cache: LatentCache,
        vae_folder: Path,
        out: Path,
        config: Stage1Training,
        ranks: Ranks,
        start: Path | None = None,
    ) -> None:
        self.config, self.out = config, out
        self.size = max(1, config.batch // ranks.world)
        self.network = Student(config.seed)
        # What was trained before reads latents by the statistics of its own VAE folder.
        statistics = cache.statistics() if start is None else self._start_from(start)
        self.batches = BatchMaker(cache, Stage1Options(), config.seed, statistics)
        library_vae = AutoencoderKLWan.from_pretrained(vae_folder)
        library_vae.register_to_config(
            latents_mean=self.batches.mean.flatten().tolist(), latents_std=self.batches.std.flatten().tolist()
        )
        self.vae = WanVideoVAE(library_vae.to(torch.bfloat16).eval())
        self.own = OwnMotion(config.own_motion_stock)
        self.facts = {name: library_vae.config[name] for name in ("latents_mean", "latents_std")}
        self.optimizers = self._optimizers()

    def _start_from(self, folder: Path) -> tuple[Tensor, Tensor]:
        """Take over the weights in a folder; returns mean and standard deviation [16] of the latents they know."""
        self.network.start_from(folder)
        known = AutoencoderKLWan.load_config(folder / "vae")
        return torch.tensor(known["latents_mean"]), torch.tensor(known["latents_std"])

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of blocks and audio projection, AdamW for the rest."""
        named = list(self.network.named_parameters())
        matrices = [p for n, p in named if p.dim() == 2 and ("transformer.blocks" in n or "audio_proj" in n)]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        rate = self.config.learning_rate
        return [
            Muon(matrices, lr=rate, weight_decay=self.config.weight_decay),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a random batch; see `Task.loss`."""
        config, batches = self.config, self.batches
        batches.random.manual_seed(int(rng.integers(2**63)))
        own = self.own if share >= config.own_motion_from else None
        if own is not None:
            own.put(*first_chunk_motion(self.network, self.vae, batches))
        batch = batches.draw(self.size, own)
        with torch.autocast("cpu", torch.bfloat16):
            return stage1_loss(self.network, batch, batches, config.temporal_weight, share >= config.look_back_from)

    def export(self, average: dict[str, Tensor]) -> None:
        """Write the averaged weights and the VAE's configuration as library model folders."""
        averaged = Student(self.config.seed)
        averaged.load_state_dict(average)
        averaged.save(self.out)
        self.vae.vae.save_config(self.out / "vae")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--start", type=Path, help="folder of an earlier run (transformer, image_encoder, vae) to go on from"
    )
    parser.add_argument("--learning-rate", type=float, default=Stage1Training.learning_rate)
    for name in ("look_back_from", "own_motion_from"):
        option, default = f"--{name.replace('_', '-')}", getattr(Stage1Training, name)
        parser.add_argument(option, type=float, default=default, help="share of the time")
    add_run_options(parser, Stage1Training.minutes)
    options = parser.parse_args(arguments)
    knobs = ("minutes", "seed", "learning_rate", "look_back_from", "own_motion_from")
    config = Stage1Training(**{name: getattr(options, name) for name in knobs})
    with reporting(), join_ranks("cpu") as ranks:
        task = Stage1Task(open_cache(options.cache), options.vae, options.out, config, ranks, options.start)
        TimedRun(task, options.out, ranks, config.pace, config).run(options.resume)


if __name__ == "__main__":
    main()
