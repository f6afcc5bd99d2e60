"""Stage 1 of the embedded model: flow matching with clean motion latents on cached chunks of drawn people.

Recipe: `torchrun --nproc-per-node 2 -m livetalk_core.training.embedded.train_stage1 --cache DIR --vae DIR --out DIR`.
In the second part of the run the sampler's levels are trained on the model's own estimates ("look back"), in the last
part second chunks also start from motion latents that the model itself produced, decoded and encoded again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ...config import ChunkGeometry, SamplerConfig
from ...models.encoders import clip_pixels
from ...models.transformer import LiveTalkTransformer3DModel
from ...models.vae import WanVideoVAE
from ...retrospective import motion_latents
from ...sampling import TRAINING_STEPS, motion_buffer, sample, timesteps
from .latent_cache import LatentCache, open_cache
from .muon import Muon
from .run_state import (
    ResumableRun,
    average_gradients,
    join_ranks,
    logger,
)
from .stage1_batch import BatchMaker, OwnMotion, Stage1Batch, Stage1Options

TRANSFORMER_CONFIG: dict[str, Any] = {
    "dim": 192,
    "num_heads": 3,
    "num_layers": 6,
    "ffn_dim": 512,
    "freq_dim": 64,
    "text_len": 4,
    "text_dim": 64,
    "clip_dim": 64,
    "audio_layers": 3,
    "audio_channels": 96,
    "intermediate_dim": 160,
    "output_dim": 96,
    "context_tokens": 4,
}
IMAGE_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "hidden_act": "gelu",
}
METRICS = ["loss", "velocity", "temporal", "clean", "gradient", "share"]


@dataclass(frozen=True)
class Stage1Training:
    """Knobs of the run; the shares are of the time budget."""

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


class Student(nn.Module):
    """Transformer and image encoder, trained together."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = CLIPVisionModel(CLIPVisionConfig(**IMAGE_CONFIG))
        self.transformer = LiveTalkTransformer3DModel(**TRANSFORMER_CONFIG)
        self.transformer.init_weights(seed)

    def condition(self, pictures: Tensor, windows: Tensor) -> tuple[Any, Any]:
        """Stream and audio conditioning of a batch."""
        config = self.transformer.config
        size = self.image.config.image_size
        features = self.image(clip_pixels(pictures, size), output_hidden_states=True).hidden_states[-2]
        context = torch.zeros(len(pictures), config.text_len, config.text_dim)
        return self.transformer.encode_stream(context, features), self.transformer.encode_audio(windows)


def stage1_loss(
    student: Student, batch: Stage1Batch, noise: BatchMaker, config: Stage1Training, look_back: bool
) -> tuple[Tensor, Tensor]:
    """Weighted velocity error on the new frames; returns (loss, [velocity, temporal, clean error])."""
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
    facts = torch.stack([flow, temporal, (clean.square() * new).sum() / total]).detach()
    return flow + config.temporal_weight * temporal, facts


@torch.no_grad()
def _own_estimate(student: Student, batch: Stage1Batch, noise: BatchMaker, stream: Any, audio: Any) -> Tensor:
    """Where the level has one before it: the model's estimate from there, which the sampler noises again."""
    previous = batch.previous.view(-1, 1, 1, 1, 1)
    noisy = batch.paste(torch.lerp(batch.clean, noise.normal(*batch.clean.shape), previous))
    velocity = student.transformer(noisy, batch.y, batch.previous * TRAINING_STEPS, stream, audio)
    estimate = noisy - previous * velocity
    return torch.where(previous > batch.level.view(-1, 1, 1, 1, 1), estimate, batch.clean)


class Stage1Trainer:
    """The run: batches, update, averages, checkpoints every two minutes, resumable."""

    def __init__(
        self, cache: LatentCache, vae_folder: Path, out: Path, config: Stage1Training, start: Path | None = None
    ) -> None:
        self.rank, self.world = join_ranks()
        self.config, self.out = config, out
        self.student = Student(config.seed)
        library_vae = AutoencoderKLWan.from_pretrained(vae_folder)
        # What was trained before reads latents by the statistics of its own VAE folder.
        statistics = cache.statistics() if start is None else self._start_from(start)
        self.batches = BatchMaker(cache, Stage1Options(), 1000 * config.seed + self.rank, statistics)
        library_vae.register_to_config(
            latents_mean=self.batches.mean.flatten().tolist(), latents_std=self.batches.std.flatten().tolist()
        )
        self.vae = WanVideoVAE(library_vae.to(torch.bfloat16).eval())
        self.own = OwnMotion(config.own_motion_stock)
        self.state = ResumableRun(
            out, self.student, self._optimizers(), decay=config.average_decay, minutes=config.minutes,
            active=self.rank == 0,
        )  # fmt: skip

    def _start_from(self, folder: Path) -> tuple[Tensor, Tensor]:
        """Take over the weights in a folder; returns mean and standard deviation of the latents that they know."""
        transformer = LiveTalkTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
        self.student.transformer.load_state_dict(transformer.state_dict())
        image = CLIPVisionModel.from_pretrained(folder / "image_encoder")
        self.student.image.load_state_dict(image.float().state_dict())
        known = AutoencoderKLWan.load_config(folder / "vae")
        return torch.tensor(known["latents_mean"]), torch.tensor(known["latents_std"])

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        named = list(self.student.named_parameters())
        matrices = [
            p for n, p in named if p.dim() == 2 and ("transformer.blocks" in n or "audio_proj" in n)
        ]  # fmt: skip
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        rate = self.config.learning_rate
        return [
            Muon(matrices, lr=rate, weight_decay=self.config.weight_decay),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def run(self) -> None:
        """Train until the budget is spent, then export the averaged weights."""
        saved, share = self.state.budget.spent, self.state.budget.share
        while share < 1:
            share = self._update(share)
            if self.state.step % 25 == 0:
                self.state.log.write(METRICS, step=self.state.step, minutes=round(self.state.budget.spent / 60, 2))
            if self.rank == 0 and self.state.budget.spent - saved > 120:
                self.state.save(self.config)
                self.export()
                saved = self.state.budget.spent
        if self.rank == 0:
            self.state.save(self.config)
            self.export()

    def _update(self, share: float) -> float:
        config = self.config
        own = self.own if share >= config.own_motion_from else None
        if own is not None:
            self._refresh_own_motion()
        batch = self.batches.draw(max(1, config.batch // self.world), own)
        with torch.autocast("cpu", torch.bfloat16):
            loss, facts = stage1_loss(self.student, batch, self.batches, config, share >= config.look_back_from)
        parameters = list(self.student.parameters())
        self.student.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        now = torch.tensor([self.state.budget.share])
        shared = average_gradients(parameters, torch.cat([now, loss.detach()[None], facts]))
        # Warm-up, constant to half time, then linear to 3 %.
        rate = config.learning_rate * min(1.0, (self.state.step + 1) / 60) * min(1.0, (1 - share) / 0.5 * 0.97 + 0.03)
        norm = self.state.update(rate)
        self.state.log.add(torch.cat([shared[1:], norm[None], shared[:1]]))
        return float(shared[0])

    @torch.no_grad()
    def _refresh_own_motion(self) -> None:
        """Roll out the first chunk of one random clip and keep its last frames as motion latents."""
        make = self.batches
        clip = torch.randint(len(make.cache), (1,), generator=make.random)
        y, pictures = make.conditioning(clip)
        first = make.normalised(make.cache.chunks[clip, 0])[:, :, :1]
        buffer, mask = motion_buffer(first, y.shape[2])
        with torch.autocast("cpu", torch.bfloat16):
            stream, audio = self.student.condition(pictures, make.windows(clip, torch.zeros_like(clip)))

            def velocity(latents: Tensor, level: Tensor) -> Tensor:
                result: Tensor = self.student.transformer(latents, y, level, stream, audio)
                return result

            noise = make.normal(1, *y.shape[1:])[:, 4:]
            latents = sample(
                velocity, noise, timesteps(SamplerConfig()), buffer, mask, lambda _: make.normal(*noise.shape)
            )
        video = self.vae.decode(latents)
        self.own.put(int(clip), motion_latents(self.vae.encode, video, ChunkGeometry().motion_frames)[0].float())

    def export(self) -> None:
        """Write the averaged weights and the VAE with its latent statistics as library model folders."""
        averaged = Student(self.config.seed)
        averaged.load_state_dict(averaged.state_dict() | self.state.average.state)
        averaged.transformer.save_pretrained(self.out / "transformer", safe_serialization=True)
        averaged.image.save_pretrained(self.out / "image_encoder", safe_serialization=True)
        self.vae.vae.save_config(self.out / "vae")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=Stage1Training.minutes)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", type=Path, help="folder of an earlier run (transformer, image_encoder, vae) to go on from"
    )
    parser.add_argument("--learning-rate", type=float, default=Stage1Training.learning_rate)
    parser.add_argument("--look-back-from", type=float, default=Stage1Training.look_back_from, help="share of the time")
    parser.add_argument(
        "--own-motion-from", type=float, default=Stage1Training.own_motion_from, help="share of the time"
    )
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    knobs = ("minutes", "seed", "learning_rate", "look_back_from", "own_motion_from")
    config = Stage1Training(**{name: getattr(options, name) for name in knobs})
    trainer = Stage1Trainer(open_cache(options.cache), options.vae, options.out, config, options.start)
    if options.resume:
        trainer.state.resume()
    trainer.run()


if __name__ == "__main__":
    main()
