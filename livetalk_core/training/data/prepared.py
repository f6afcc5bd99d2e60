"""The prepared data set: encoded clips in safetensors shards, one JSON file that names them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...config import ChunkGeometry, Settings
from ...errors import TrainingError

INDEX = "dataset.json"
TEXTS = "texts.safetensors"
FORMAT = 1
CONTEXT = 2
_OPEN_SHARDS = 64


class ClipEntry(Settings, frozen=True, kw_only=True):
    """One clip: where it lies and what it is."""

    name: str
    shard: str
    bucket: str
    chunks: int
    references: int
    prompt: int = 0
    face: tuple[float, float, float, float] | None = None


class DatasetIndex(Settings, frozen=True, kw_only=True):
    """Contents of dataset.json.

    Attributes:
        encoders: Fingerprint of the VAE, audio and image encoders that made the latents and features.
        geometry: Chunks.
        prompts: What the clips' `prompt` numbers mean.
        clips: All clips.
        skipped: Reason -> how many videos or clips were left out for it.
    """

    format: int
    encoders: str
    geometry: ChunkGeometry
    prompts: tuple[str, ...]
    clips: tuple[ClipEntry, ...]
    skipped: dict[str, int]


@dataclass(frozen=True)
class ClipTensors:
    """Consecutive chunks of one clip.

    Attributes:
        latents: Normalised, [K,16,T,h,w]; each chunk encoded afresh, as at inference.
        features: Audio features behind the windows of each chunk, [K,rows,layers,channels].
        reference: Latents of a reference picture and grey frames, [16,T,h,w].
        clip_features: Image encoder states of that picture [n,dim].
        picture: uint8 [H,W,3].
        face: 1 inside the face, [h,w]; all zero where it is not known.
    """

    latents: Tensor
    features: Tensor
    reference: Tensor
    clip_features: Tensor
    picture: Tensor
    face: Tensor


class PreparedSet:
    """A prepared folder, read lazily.

    Args:
        folder: Written by `prepare`.

    Raises:
        TrainingError: it is not there, not finished, empty, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.index = msgspec.json.decode((folder / INDEX).read_bytes(), type=DatasetIndex)
        except OSError as error:
            raise TrainingError(
                f"{folder} holds no prepared data ({INDEX} is missing).",
                "Run livetalk train prepare to its end first.", file=str(folder),
            ) from error  # fmt: skip
        except msgspec.DecodeError as error:
            raise TrainingError(f"{folder / INDEX} is damaged ({error}).", "Prepare the data again.") from error
        if not self.index.clips:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.index.skipped.items())
            raise TrainingError(f"{folder} holds no clips ({reasons}).", "Prepare other videos.")
        self.buckets: dict[str, list[int]] = {}
        for number, clip in enumerate(self.index.clips):
            self.buckets.setdefault(clip.bucket, []).append(number)
        texts = self._read(folder / TEXTS, ["null", *(f"prompt.{n}" for n in range(len(self.index.prompts)))])
        self.null_context = texts.pop("null")
        self.contexts = list(texts.values())

    @property
    def geometry(self) -> ChunkGeometry:
        """Chunks of the clips."""
        return self.index.geometry

    def describe(self) -> str:
        """How many clips it has, and a fingerprint that changes with them."""
        digest = hashlib.sha256((self.folder / INDEX).read_bytes()).hexdigest()
        return f"{len(self)} clips ({digest[:12]})"

    def __len__(self) -> int:
        return len(self.index.clips)

    def with_chunks(self, bucket: str, chunks: int) -> list[int]:
        """Clips of a bucket with at least so many chunks."""
        return [number for number in self.buckets[bucket] if self.index.clips[number].chunks >= chunks]

    def read(self, number: int, first: int, chunks: int, reference: int) -> ClipTensors:
        """`chunks` chunks of a clip from chunk `first` on, with one of its references."""
        clip = self.index.clips[number]
        with self._open(clip.shard) as shard:
            last = first + chunks
            latents = shard.get_slice(f"{clip.name}/latents")[first:last].float()
            return ClipTensors(
                latents,
                shard.get_slice(f"{clip.name}/features")[first:last].float(),
                shard.get_slice(f"{clip.name}/references")[reference].float(),
                shard.get_slice(f"{clip.name}/clip_features")[reference].float(),
                shard.get_slice(f"{clip.name}/pictures")[reference],
                face_mask(clip.face, latents.shape[-2], latents.shape[-1]),
            )

    def samples(self, number: int) -> Tensor:
        """Sound of a clip and of what its first window hears before it, float32 [S]."""
        clip = self.index.clips[number]
        with self._open(clip.shard) as shard:
            sound: Tensor = shard.get_tensor(f"{clip.name}/samples")
        return sound.float() / 32767

    def _open(self, name: str) -> Any:
        try:
            return safe_open(self.folder / name, "pt")
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{self.folder / name} cannot be read ({error}).", "Prepare the data again.") from error

    @staticmethod
    def _read(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name).float() for name in names}
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path} cannot be read ({error}).", "Prepare the data again.") from error


def face_mask(face: tuple[float, float, float, float] | None, rows: int, columns: int) -> Tensor:
    """1 at latent positions whose middle lies in the face box, [rows, columns]."""
    mask = torch.zeros(rows, columns)
    if face is not None:
        left, top, right, bottom = face
        across, down = (torch.arange(columns) + 0.5) / columns, (torch.arange(rows) + 0.5) / rows
        mask = ((down >= top) & (down < bottom)).float()[:, None] * ((across >= left) & (across < right)).float()
    return mask


@lru_cache(maxsize=8)
def window_rows(frames: int, context: int = CONTEXT) -> Tensor:
    """Rows [F, 2*context+1] of a chunk's features behind its windows; the right end repeats the newest row."""
    offsets = torch.arange(frames)[:, None] + torch.arange(2 * context + 1)
    return offsets.clamp(max=frames + context - 1)


def count_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """Reason -> how often, the most frequent first."""
    return dict(Counter(reasons).most_common())
