"""Pre-training of the embedded model's audio encoder: hear speech, predict the mouth that makes it."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from ...errors import TrainingError
from ...models.wav2vec2 import audio_features, normalise
from ..speech.audio_clips import compose
from ..speech.bank import SAMPLES_PER_FRAME, SpeechBank
from .muon import Muon
from .run_state import optimizer_tensors, restore_optimizers

LAYERS: Final = 3
CHANNELS: Final = 96
WINDOW_FRAMES: Final = 200
SLICE_FRAMES: Final = 28

PARAMETERS: Final = 4
"""Mouth parameters that are read out; one more read-out says whether the lips are pressed together."""

_PARAMETER_WEIGHTS = (2.0, 1.0, 0.7, 0.4)
_LAYER_WEIGHTS = (0.3, 0.3, 1.0)
_CLOSED, _CLOSING_FROM, _CLOSURE_REACH = 0.12, 0.3, 9
_CLOSURE_WEIGHT = 0.25
_logger = logging.getLogger("livetalk")


@dataclass(frozen=True)
class AudioTrainingConfig:
    """One run. `minutes` is the wall-clock budget of the whole run, resumed parts included."""

    minutes: float = 22.0
    batch: int = 6
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.01
    warm_up_steps: int = 100
    seed: int = 1
    checkpoint_seconds: float = 120.0
    bfloat16: bool = True


def tiny_audio_config() -> Wav2Vec2Config:
    """wav2vec2 with the published hop of 320 samples and 550 thousand parameters.

    The last two kernels are wider than the published ones: at 25 video frames per second every other convolution
    frame is read, so each has to see 40 ms of sound or more for a short burst not to fall between two of them.
    """
    return Wav2Vec2Config(
        vocab_size=32,
        hidden_size=CHANNELS,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=384,
        conv_dim=(32, 32, 48, 96, 96, 128, 128),
        conv_kernel=(10, 3, 3, 3, 3, 4, 4),
        conv_stride=(5, 2, 2, 2, 2, 2, 2),
        conv_bias=True,
        feat_extract_norm="group",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=17,
        num_conv_pos_embedding_groups=4,
        hidden_dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.1,
        feat_proj_dropout=0.1,
        layerdrop=0.0,
        mask_time_prob=0.0,
        apply_spec_augment=False,
        attn_implementation="sdpa",
    )


class MouthReader(nn.Module):
    """Audio encoder plus, per encoder layer, a linear read-out of the four mouth parameters and of lip closures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Wav2Vec2Model(tiny_audio_config())
        self.heads = nn.ModuleList([nn.Linear(CHANNELS, PARAMETERS + 1) for _ in range(LAYERS)])

    def forward(self, samples: Tensor, frames: int) -> Tensor:
        """Normalised samples [B, S] -> mouth and closure logit [B, frames, layers, 5] float32."""
        features = audio_features(self.encoder, samples, frames).float()
        return torch.stack([head(features[:, :, i]) for i, head in enumerate(self.heads)], dim=2)


def closures_of(mouth: Tensor) -> Tensor:
    """1 where lips that open just before or just after are pressed together, else 0: mouth [B, F, 4] -> [B, F]."""
    opening = mouth[..., 0]
    peak = nn.functional.max_pool1d(opening[:, None], _CLOSURE_REACH, stride=1, padding=_CLOSURE_REACH // 2)[:, 0]
    return ((opening < _CLOSED) & (peak > _CLOSING_FROM)).float()


def mouth_loss(predicted: Tensor, mouth: Tensor) -> Tensor:
    """Weighted L1 + L2 + L1 of the time difference and cross entropy of closures, sharper at dips and closures.

    Args:
        predicted: [B, F, layers, 5], the last one a logit; mouth: [B, F, 4].
    """
    opening = mouth[..., :1].transpose(1, 2)
    peak = nn.functional.max_pool1d(opening, 7, stride=1, padding=3)
    dip = (peak - opening).transpose(1, 2)
    closed = closures_of(mouth)
    recent = torch.ones(mouth.shape[1])
    recent[-33:] = 1.5
    weight = (1 + 1.5 * dip + 1.5 * closed[..., None]) * recent[None, :, None] * torch.tensor(_PARAMETER_WEIGHTS)
    total = predicted.new_zeros(())
    for layer, layer_weight in enumerate(_LAYER_WEIGHTS):
        error = predicted[:, :, layer, :PARAMETERS] - mouth
        change = (error[:, 1:] - error[:, :-1]).abs() * weight[:, 1:]
        closing = nn.functional.binary_cross_entropy_with_logits(predicted[:, :, layer, PARAMETERS], closed)
        total = total + layer_weight * (
            (error.abs() * weight).mean()
            + 2 * (error.square() * weight).mean()
            + 0.5 * change.mean()
            + _CLOSURE_WEIGHT * closing
        )
    return total


def random_batch(bank: SpeechBank, rng: np.random.Generator, batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """Normalised windows [B, frames * 640] and mouth tracks [B, frames, 4]."""
    clips = [compose(bank, rng, frames) for _ in range(batch)]
    samples = torch.from_numpy(np.stack([samples for samples, _ in clips]))
    return normalise(samples), torch.from_numpy(np.stack([mouth for _, mouth in clips]))


class AudioTrainer:
    """Trains a MouthReader for a fixed time, keeps an exponential moving average, saves and resumes."""

    def __init__(self, bank: SpeechBank, folder: Path, config: AudioTrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self.bank, self.folder, self.config = bank, folder, config
        self.model = MouthReader()
        self.average = MouthReader().requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimizers = self._optimizers()
        self.step, self.seconds = 0, 0.0

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of layers and inner convolutions, AdamW for the rest."""
        inner = {
            id(p)
            for name, p in self.model.encoder.named_parameters()
            if (p.dim() == 2 and "encoder.layers" in name)
            or (p.dim() == 3 and "conv_layers.0." not in name and "feature_extractor" in name)
        }
        matrices = [p for p in self.model.parameters() if id(p) in inner]
        rest = [p for p in self.model.parameters() if id(p) not in inner]
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return [
            Muon(matrices, lr=rate, weight_decay=decay),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=decay),
        ]

    def run(self) -> MouthReader:
        """Train until the time is used up; returns the averaged model."""
        budget = self.config.minutes * 60
        last = time.monotonic()
        saved_at, losses = self.seconds, []
        while self.seconds < budget:
            losses.append(self.train_step(self.seconds / budget))
            now = time.monotonic()
            self.seconds += now - last
            last = now
            if self.step % 100 == 0:
                _logger.info("step %d, %.0f s, loss %.4f", self.step, self.seconds, float(np.mean(losses)))
                losses = []
            if self.seconds - saved_at > self.config.checkpoint_seconds:
                self.save()
                saved_at = self.seconds
        self.save()
        return self.average

    def train_step(self, progress: float) -> float:
        """One optimiser step at `progress` (0..1) of the schedule; returns the loss."""
        rng = np.random.default_rng([self.config.seed, self.step])
        # Dropout, too, follows from the step, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(int(rng.integers(2**63)))
        rate = self.config.learning_rate * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate * min(1.0, (self.step + 1) / self.config.warm_up_steps)
        frames = (100, 150, WINDOW_FRAMES)[int(rng.integers(3))]
        # Shorter windows come in larger batches, so that all steps cost the same.
        samples, mouth = random_batch(self.bank, rng, self.config.batch * WINDOW_FRAMES // frames, frames)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            predicted = self.model(samples, frames)
        loss = mouth_loss(predicted, mouth)
        self.model.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(0.995, self.step / (self.step + 20))
        current = self.model.state_dict()
        for name, value in self.average.state_dict().items():
            value.lerp_(current[name], 1 - keep)

    def save(self) -> None:
        """Write the checkpoint; an interrupted write leaves the previous one in place."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizers)
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        partial = self.folder / "checkpoint.partial"
        progress = {
            "step": str(self.step),
            "seconds": str(self.seconds),
            "config": json.dumps(asdict(self.config)),
        }
        save_file(tensors, str(partial), metadata=progress)
        os.replace(partial, self.folder / "checkpoint.safetensors")
        (self.folder / "checkpoint.json").write_text(json.dumps(progress), encoding="utf-8")

    def resume(self) -> None:
        """Continue from the checkpoint in the folder.

        Raises:
            TrainingError: there is none, or it belongs to another model.
        """
        path = self.folder / "checkpoint.safetensors"
        try:
            tensors = load_file(str(path))
            progress = json.loads((self.folder / "checkpoint.json").read_text(encoding="utf-8"))
            self.model.load_state_dict(_under("model.", tensors))
            self.average.load_state_dict(_under("average.", tensors))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise TrainingError(f"{path} cannot be resumed: {error}", hint="start a new run without it") from error
        restore_optimizers(self.optimizers, tensors)
        self.step, self.seconds = int(progress["step"]), float(progress["seconds"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def export_audio_encoder(reader: MouthReader, folder: Path) -> None:
    """Write the encoder as a transformers folder with fp16 weights, and the read-out heads beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    half = Wav2Vec2Model(reader.encoder.config)
    half.load_state_dict(reader.encoder.state_dict())
    half.half().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    heads = {name: value.contiguous() for name, value in reader.heads.state_dict().items()}
    save_file(heads, str(folder.parent / "mouth_heads.safetensors"))


def load_reader(folder: Path) -> MouthReader:
    """Read the model that `export_audio_encoder(reader, folder)` wrote, in float32.

    Raises:
        TrainingError: a file is missing or of another model.
    """
    reader = MouthReader()
    try:
        reader.encoder.load_state_dict(load_file(str(folder / "model.safetensors")))
        reader.heads.load_state_dict(load_file(str(folder.parent / "mouth_heads.safetensors")))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"{folder} holds no usable audio encoder: {error}", hint="train it again") from error
    return reader.eval()


@torch.no_grad()
def read_mouth(reader: MouthReader, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mouth [F, 4] as a stream hears it: from 8 s windows that move by 28 frames, the newest 28 frames each.

    The first windows are mostly zeros, and the last frames of every window have no sound after them.
    """
    frames = len(samples) // SAMPLES_PER_FRAME
    windows = -(-frames // SLICE_FRAMES)
    padded = np.zeros((WINDOW_FRAMES + windows * SLICE_FRAMES) * SAMPLES_PER_FRAME, np.float32)
    first = WINDOW_FRAMES * SAMPLES_PER_FRAME
    padded[first : first + frames * SAMPLES_PER_FRAME] = samples[: frames * SAMPLES_PER_FRAME]
    read: list[NDArray[np.float32]] = []
    for index in range(1, windows + 1):
        start = index * SLICE_FRAMES * SAMPLES_PER_FRAME
        window = torch.from_numpy(padded[start : start + first])
        mouth = reader(normalise(window[None]), WINDOW_FRAMES)
        read.append(mouth[0, -SLICE_FRAMES:, -1, :PARAMETERS].numpy())
    return np.concatenate(read)[:frames]
