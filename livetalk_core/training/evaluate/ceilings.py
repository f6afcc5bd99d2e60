"""What each part of a model could reach at best: the measure, the VAE, the audio encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...engine.step import to_frames
from ...errors import CheckpointError
from ...models.vae import WanVideoVAE
from ..embedded.audio_model import load_reader, read_mouth
from .cases import Frames

HEADS = "mouth_heads.safetensors"
"""Read-outs of the audio encoder, beside its folder where training left them."""


@torch.no_grad()
def vae_round_trip(vae: WanVideoVAE, frames: Frames, geometry: ChunkGeometry) -> Frames:
    """True frames [F,H,W,3] through encoder and decoder, cut into chunks as a stream is."""
    step, lead = geometry.slice_frames, geometry.motion_frames
    starts = range(0, len(frames), step)
    after = starts[-1] + step - len(frames)
    padded = np.pad(frames, ((lead, after), (0, 0), (0, 0), (0, 0)), mode="edge")
    parts = []
    for start in starts:
        chunk = torch.from_numpy(padded[start : start + geometry.frames]).to(vae.device)
        video = (chunk.permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0).to(vae.dtype)
        parts.append(to_frames(vae.decode(vae.encode(video))[:, :, lead:]))
    return np.concatenate(parts)[: len(frames)]


def find_audio_encoder(model: Path | None) -> Path | None:
    """The model's audio encoder folder, if the read-outs of its training lie beside it."""
    if model is None or not (model / HEADS).is_file():
        return None
    return model / "audio_encoder"


def heard_opening(audio_encoder: Path, samples: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Mouth opening that the audio encoder's own read-out hears in each sound [S], as a stream hears it.

    Raises:
        CheckpointError: there is no encoder, or no read-outs beside it.
    """
    for path in (audio_encoder / "config.json", audio_encoder.parent / HEADS):
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing.", "Give the folder that audio training exported.", file=str(path)
            )
    reader = load_reader(audio_encoder)
    return [read_mouth(reader, each)[:, 0] for each in samples]
