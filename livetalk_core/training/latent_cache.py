"""Latents and audio features of the clips, computed once so that stage 1 never touches pixels or sound.

One safetensors shard holds 100 clips; shards that exist are kept, so an interrupted run continues. Under torchrun the
ranks share the shards between them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Wav2Vec2Model

from ..config import ChunkGeometry
from ..errors import TrainingError
from ..models.vae import WanVideoVAE
from ..models.wav2vec2 import audio_features, normalise
from .clips import CHUNKS, ClipStore, open_clips
from .run_state import join_ranks, logger

SHARD_CLIPS = 100
_GEOMETRY = ChunkGeometry()
CONTEXT = 2
FEATURE_ROWS = _GEOMETRY.frames + CONTEXT
"""Newest rows of the audio window that the windows of a chunk read (the right end is clamped)."""


@dataclass(frozen=True)
class LatentCache:
    """Cached conditioning and targets of N clips, un-normalised latents in bfloat16.

    Attributes:
        chunks: [N,2,16,T,h,w], each chunk encoded afresh as inference does.
        references: [N,16,T,h,w], the reference followed by mid-grey frames.
        features: [N,2,35,layers,channels].
        pictures: uint8 [N,H,W,3].
    """

    chunks: Tensor
    references: Tensor
    features: Tensor
    pictures: Tensor

    def __len__(self) -> int:
        return len(self.chunks)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every latent channel, float32 [16]."""
        sample = self.chunks[:: max(1, len(self) // 400)].float()
        return sample.mean((0, 1, 3, 4, 5)), sample.std((0, 1, 3, 4, 5))


def window_rows() -> Tensor:
    """Rows [33,5] of `features` behind the windows of a chunk's frames."""
    offsets = torch.arange(_GEOMETRY.frames)[:, None] + torch.arange(2 * CONTEXT + 1)
    return offsets.clamp(max=FEATURE_ROWS - 1)


def as_video(frames: NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
    """uint8 [B,F,H,W,3] -> [B,3,F,H,W] in [-1,1]."""
    video = torch.from_numpy(np.array(frames)).permute(0, 4, 1, 2, 3)
    return video.to(dtype).div_(127.5).sub_(1)


@torch.inference_mode()
def encode_clips(vae: WanVideoVAE, audio: Wav2Vec2Model, clips: ClipStore, first: int, last: int) -> dict[str, Tensor]:
    """Tensors of clips first..last-1."""
    rows: dict[str, list[Tensor]] = {name: [] for name in ("chunks", "references", "features", "pictures")}
    slice_frames, frames = _GEOMETRY.slice_frames, _GEOMETRY.frames
    for clip in range(first, last):
        video = as_video(clips.frames[clip : clip + 1], torch.bfloat16)
        starts = [k * slice_frames for k in range(CHUNKS)]
        parts = [_mean(vae, video[:, :, s : s + frames]) for s in starts]
        picture = as_video(clips.references[clip : clip + 1, None], torch.bfloat16)
        padded = torch.nn.functional.pad(picture, (0, 0, 0, 0, 0, frames - 1))
        rows["chunks"].append(torch.cat(parts))
        rows["references"].append(_mean(vae, padded)[0])
        rows["features"].append(_features(audio, clips.samples[clip], starts))
        rows["pictures"].append(torch.from_numpy(clips.references[clip].copy()))
    return {name: torch.stack(values).contiguous() for name, values in rows.items()}


def _mean(vae: WanVideoVAE, video: Tensor) -> Tensor:
    return vae.moments(video).chunk(2, dim=1)[0].bfloat16()


def _features(audio: Wav2Vec2Model, samples: NDArray[np.float16], starts: list[int]) -> Tensor:
    per_frame, length = _GEOMETRY.samples_per_frame, _GEOMETRY.window_samples
    windows = np.stack([samples[s * per_frame : s * per_frame + length] for s in starts]).astype(np.float32)
    features = audio_features(audio, normalise(torch.from_numpy(windows)), _GEOMETRY.window_frames)
    return features[:, -FEATURE_ROWS:].bfloat16()


def build_cache(vae_folder: Path, audio_folder: Path, clips: ClipStore, out: Path) -> None:
    """Encode all clips, this rank's share of the shards."""
    rank, world = join_ranks()
    out.mkdir(parents=True, exist_ok=True)
    vae = WanVideoVAE(AutoencoderKLWan.from_pretrained(vae_folder).to(torch.bfloat16).eval())
    audio = Wav2Vec2Model.from_pretrained(audio_folder, attn_implementation="sdpa").float().eval()
    firsts = list(range(0, len(clips), SHARD_CLIPS))
    for first in firsts[rank::world]:
        path = out / f"clips_{first:06d}.safetensors"
        if path.exists():
            continue
        part = path.with_suffix(".part")
        save_file(encode_clips(vae, audio, clips, first, min(first + SHARD_CLIPS, len(clips))), part)
        part.replace(path)
        logger.info("encoded clips from %d", first)


def open_cache(folder: Path) -> LatentCache:
    """Load all shards of a folder into memory.

    Raises:
        TrainingError: there is no shard.
    """
    shards = [load_file(path) for path in sorted(folder.glob("clips_*.safetensors"))]
    if not shards:
        raise TrainingError(f"{folder} holds no cached clips.", "Run livetalk_core.training.latent_cache first.")
    merged: dict[str, Any] = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    return LatentCache(**merged)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    torch.set_num_threads(1)
    build_cache(options.vae, options.audio, open_clips(options.clips), options.out)


if __name__ == "__main__":
    main()
