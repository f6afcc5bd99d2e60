"""Latents and audio features of the clips, computed once so that stage 1 never touches pixels or sound.

One safetensors shard holds 100 clips; shards of the same clips and encoders are kept, so an interrupted run continues.
Under torchrun the ranks share the shards between them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import Wav2Vec2Model

from ...config import ChunkGeometry
from ...errors import TrainingError
from ...loading.atomic_files import write_safetensors
from ...loading.model_files import files_stamp
from ...media import make_folder
from ...models.vae import WanVideoVAE
from ...models.wav2vec2 import audio_features, normalise
from ..trainer.ranks import Ranks, join_ranks
from .audio_loss import closures_of
from .clips import CHUNKS, VIDEO_FRAMES, ClipStore, open_clips
from .command_line import logger, reporting

SHARD_CLIPS = 100
_GEOMETRY = ChunkGeometry()
CONTEXT = 2
_STARTS = tuple(k * _GEOMETRY.slice_frames for k in range(CHUNKS))
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
        closures, blinks: [N,2,T], 1 where a latent frame holds pressed lips or closing eyes, else 0.
    """

    chunks: Tensor
    references: Tensor
    features: Tensor
    pictures: Tensor
    closures: Tensor
    blinks: Tensor

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
def encode_frames(vae: WanVideoVAE, clips: ClipStore, first: int, last: int) -> dict[str, Tensor]:
    """`chunks`, `references`, `pictures`, `closures` and `blinks` of clips first..last-1."""
    rows: dict[str, list[Tensor]] = {name: [] for name in ("chunks", "references", "pictures")}
    frames = _GEOMETRY.frames
    for clip in range(first, last):
        video = as_video(clips.frames[clip : clip + 1], torch.bfloat16)
        picture = as_video(clips.references[clip : clip + 1, None], torch.bfloat16)
        padded = torch.nn.functional.pad(picture, (0, 0, 0, 0, 0, frames - 1))
        rows["chunks"].append(torch.cat([_mean(vae, video[:, :, s : s + frames]) for s in _STARTS]))
        rows["references"].append(_mean(vae, padded)[0])
        rows["pictures"].append(torch.from_numpy(clips.references[clip].copy()))
    mouths = torch.from_numpy(np.array(clips.mouths[first:last, -VIDEO_FRAMES:]))
    blinks = torch.from_numpy(np.array(clips.blinks[first:last]))
    marks = {"closures": by_latent(closures_of(mouths)), "blinks": by_latent((blinks > 0).float())}
    return marks | {name: torch.stack(values).contiguous() for name, values in rows.items()}


def by_latent(marks: Tensor) -> Tensor:
    """Marks of video frames [B,61] -> [B,2,T]: the largest among the frames of each latent frame of each chunk."""
    chunks = torch.stack([marks[:, start : start + _GEOMETRY.frames] for start in _STARTS], dim=1)
    later = chunks[..., 1:].unflatten(-1, (-1, _GEOMETRY.temporal_stride)).amax(-1)
    return torch.cat([chunks[..., :1], later], dim=-1)


@torch.inference_mode()
def encode_sound(audio: Wav2Vec2Model, clips: ClipStore, first: int, last: int) -> dict[str, Tensor]:
    """`features` of clips first..last-1."""
    rows = [sound_features(audio, clips.samples[clip]) for clip in range(first, last)]
    return {"features": torch.stack(rows).contiguous()}


def _mean(vae: WanVideoVAE, video: Tensor) -> Tensor:
    return vae.moments(video).chunk(2, dim=1)[0].bfloat16()


def sound_features(audio: Wav2Vec2Model, samples: NDArray[np.float16]) -> Tensor:
    """Newest features of both chunks of a clip's sound, bfloat16 [2,35,layers,channels]."""
    per_frame, length = _GEOMETRY.samples_per_frame, _GEOMETRY.window_samples
    windows = np.stack([samples[s * per_frame : s * per_frame + length] for s in _STARTS]).astype(np.float32)
    features = audio_features(audio, normalise(torch.from_numpy(windows)), _GEOMETRY.window_frames)
    return features[:, -FEATURE_ROWS:].bfloat16()


def write_shards(
    out: Path, kind: str, clips: ClipStore, encoder: Path, encode: Callable[[int, int], dict[str, Tensor]], ranks: Ranks
) -> None:
    """Write this rank's share of the shards `kind`_*.safetensors; what is there already of the same clips and encoder
    is kept.
    """
    make_folder(out)
    stamp = files_stamp(encoder)
    for first in range(ranks.rank * SHARD_CLIPS, len(clips), ranks.world * SHARD_CLIPS):
        last = min(first + SHARD_CLIPS, len(clips))
        path = out / f"{kind}_{first:06d}.safetensors"
        origin = hashlib.sha256(clips.samples[first:last].tobytes() + stamp.encode()).hexdigest()
        if _origin_of(path) != origin:
            write_safetensors(path, encode(first, last), {"origin": origin})
            logger.info("%s of clips from %d", kind, first)


def _origin_of(path: Path) -> str:
    """What a shard was made from; "" where there is none that can be read."""
    try:
        with safe_open(path, "pt") as shard:
            return str((shard.metadata() or {}).get("origin", ""))
    except (OSError, SafetensorError):
        return ""


def build_cache(
    clips: ClipStore, out: Path, vae_folder: Path | None, audio_folder: Path | None, ranks: Ranks
) -> None:
    """Encode the frames of all clips, or their sound, or both."""
    if vae_folder is not None:
        vae = WanVideoVAE(AutoencoderKLWan.from_pretrained(vae_folder).to(torch.bfloat16).eval())
        write_shards(out, "frames", clips, vae_folder, lambda a, b: encode_frames(vae, clips, a, b), ranks)
    if audio_folder is not None:
        audio = Wav2Vec2Model.from_pretrained(audio_folder, attn_implementation="sdpa").float().eval()
        write_shards(out, "sound", clips, audio_folder, lambda a, b: encode_sound(audio, clips, a, b), ranks)


def open_cache(folder: Path) -> LatentCache:
    """Load all shards of a folder into memory.

    Raises:
        TrainingError: frames or sound are missing, or do not cover the same clips.
    """
    merged: dict[str, Tensor] = {}
    for kind in ("frames", "sound"):
        shards = [load_file(path) for path in sorted(folder.glob(f"{kind}_*.safetensors"))]
        if not shards:
            raise TrainingError(f"{folder} holds no encoded {kind}.", "Run training.embedded.latent_cache first.")
        merged |= {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    counts = {name: len(tensor) for name, tensor in merged.items()}
    if len(set(counts.values())) > 1:
        raise TrainingError(f"{folder} is incomplete: {counts}.", "Run training.embedded.latent_cache again.")
    return LatentCache(**merged)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--vae", type=Path, help="VAE folder; without it no frames are encoded")
    parser.add_argument("--audio", type=Path, help="audio encoder folder; without it no sound is encoded")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    with reporting(), join_ranks("cpu") as ranks:
        build_cache(open_clips(options.clips), options.out, options.vae, options.audio, ranks)


if __name__ == "__main__":
    main()
