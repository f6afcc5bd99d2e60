"""Pre-training of the embedded model's audio encoder: hear speech, predict the mouth that makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.wav2vec2 import normalise
from ..speech.audio_clips import compose
from ..speech.bank import SpeechBank
from .audio_loss import mouth_loss
from .audio_model import WINDOW_FRAMES, MouthReader, export_audio_encoder
from .muon import Muon
from .timed_run import Pace

_LENGTHS = (100, 150, WINDOW_FRAMES)


@dataclass(frozen=True)
class AudioTraining:
    """Knobs of the run."""

    minutes: float = 22.0
    batch: int = 6
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.01
    average_decay: float = 0.995
    seed: int = 1
    bfloat16: bool = True

    @property
    def pace(self) -> Pace:
        """How the run moves."""
        return Pace(
            minutes=self.minutes, learning_rate=self.learning_rate, warm_up=100, average_decay=self.average_decay,
            log_every=100, seed=self.seed,
        )  # fmt: skip


def random_batch(bank: SpeechBank, rng: np.random.Generator, batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """Normalised windows [B, frames * 640] and mouth tracks [B, frames, 4]."""
    clips = [compose(bank, rng, frames) for _ in range(batch)]
    samples = torch.from_numpy(np.stack([samples for samples, _ in clips]))
    return normalise(samples), torch.from_numpy(np.stack([mouth for _, mouth in clips]))


class AudioTask:
    """A `MouthReader` learns from random stretches of the bank's speech.

    Args:
        bank: Speech with mouth tracks.
        folder: Gets `audio_encoder` and the read-outs beside it.
        config: Knobs of the run.
    """

    def __init__(self, bank: SpeechBank, folder: Path, config: AudioTraining) -> None:
        torch.manual_seed(config.seed)
        self.bank, self.folder, self.config = bank, folder, config
        self.network = MouthReader()
        self.optimizers = self._optimizers()
        self.facts: dict[str, Any] = {}

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of layers and inner convolutions, AdamW for the rest."""
        inner = {
            id(p)
            for name, p in self.network.encoder.named_parameters()
            if (p.dim() == 2 and "encoder.layers" in name)
            or (p.dim() == 3 and "conv_layers.0." not in name and "feature_extractor" in name)
        }
        matrices = [p for p in self.network.parameters() if id(p) in inner]
        rest = [p for p in self.network.parameters() if id(p) not in inner]
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return [
            Muon(matrices, lr=rate, weight_decay=decay),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay),
        ]

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a random batch; see `Task.loss`."""
        frames = _LENGTHS[int(rng.integers(len(_LENGTHS)))]
        # Shorter windows come in larger batches, so that all steps cost the same.
        samples, mouth = random_batch(self.bank, rng, self.config.batch * WINDOW_FRAMES // frames, frames)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            predicted = self.network(samples, frames)
        return mouth_loss(predicted, mouth), {}

    def export(self, average: dict[str, Tensor]) -> None:
        """Write the averaged encoder; see `export_audio_encoder`."""
        reader = MouthReader()
        reader.load_state_dict(average)
        export_audio_encoder(reader, self.folder / "audio_encoder")
