"""The embedded model's audio encoder, and the mouth that it reads from speech."""

from __future__ import annotations

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
from ..speech.bank import SAMPLES_PER_FRAME

LAYERS: Final = 3
CHANNELS: Final = 96
WINDOW_FRAMES: Final = 200
SLICE_FRAMES: Final = 28

PARAMETERS: Final = 4
"""Mouth parameters that are read out; one more read-out says whether the lips are pressed together."""


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
