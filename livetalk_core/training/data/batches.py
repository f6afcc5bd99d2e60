"""Batches of prepared clips, a function of (seed, iteration, sample): the same for any number of ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import TrainingError
from ..trainer.draws import Draws, Purpose
from .prepared import ClipTensors, PreparedSet, window_rows


@dataclass(frozen=True)
class Batch:
    """B clips of K consecutive chunks.

    Attributes:
        draws: Random numbers of this batch.
        latents: Normalised latents of the true video [B,K,16,T,h,w].
        windows: Audio windows [B,K,F,window,layers,channels].
        y: Mask and reference latents [B,4+16,T,h,w].
        clip_features: Image encoder states of the references [B,n,dim].
        context: Text states [B,L,text_dim].
        null_context: Text states of the unconditional pass [1,L,text_dim].
        pictures: Reference pictures [B,3,1,H,W] in [-1,1].
        face: [B,1,1,h,w], 1 inside the face.
    """

    draws: Draws
    latents: Tensor
    windows: Tensor
    y: Tensor
    clip_features: Tensor
    context: Tensor
    null_context: Tensor
    pictures: Tensor
    face: Tensor

    def __len__(self) -> int:
        return len(self.latents)


class PreparedBatches:
    """Draws batches from a prepared set.

    Args:
        data: The set.
        device: Where batches go.
    """

    def __init__(self, data: PreparedSet, device: torch.device) -> None:
        self.data, self.device = data, device

    def draw(self, draws: Draws, chunks: int) -> Batch:
        """Clips of one bucket, which is the same for all ranks.

        Raises:
            TrainingError: no clip has so many chunks.
        """
        data = self.data
        fitting = {bucket: clips for bucket in sorted(data.buckets) if (clips := data.with_chunks(bucket, chunks))}
        total = sum(len(clips) for clips in fitting.values())
        if not total:
            raise TrainingError(
                f"No clip of {data.folder} has {chunks} chunks.",
                "Prepare longer clips (--chunks), or lower method.max_chunks.",
            )
        place = draws.shared(Purpose.BUCKET, total)
        clips = _bucket_of(fitting, place)
        entries = data.index.clips
        chosen = [clips[n] for n in draws.integers(Purpose.CLIP, len(clips))]
        firsts = _below(draws, Purpose.FIRST_CHUNK, [entries[c].chunks - chunks + 1 for c in chosen])
        references = _below(draws, Purpose.REFERENCE, [entries[c].references for c in chosen])
        parts = [data.read(c, first, chunks, r) for c, first, r in zip(chosen, firsts, references, strict=True)]
        return join_clips(data, draws, parts, [entries[c].prompt for c in chosen], self.device)


def join_clips(
    data: PreparedSet, draws: Draws, parts: list[ClipTensors], prompts: list[int], device: torch.device
) -> Batch:
    """A batch of these clips."""
    geometry = data.geometry
    reference = torch.stack([part.reference for part in parts])
    mask = reference.new_zeros(len(parts), geometry.temporal_stride, *reference.shape[2:])
    mask[:, :, 0] = 1
    features = torch.stack([part.features for part in parts])
    pictures = torch.stack([part.picture for part in parts]).permute(0, 3, 1, 2).float() / 127.5 - 1

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    return Batch(
        draws,
        to(torch.stack([part.latents for part in parts])),
        to(features[:, :, window_rows(geometry.frames)]),
        to(torch.cat([mask, reference], dim=1)),
        to(torch.stack([part.clip_features for part in parts])),
        to(torch.stack([data.contexts[n] for n in prompts])),
        to(data.null_context[None]),
        to(pictures[:, :, None]),
        to(torch.stack([part.face for part in parts])[:, None, None]),
    )


def _bucket_of(buckets: dict[str, list[int]], place: int) -> list[int]:
    for clips in buckets.values():
        if place < len(clips):
            return clips
        place -= len(clips)
    raise AssertionError("place lies beyond all buckets")


def _below(draws: Draws, purpose: Purpose, stops: list[int]) -> list[int]:
    """One integer below each stop; drawn as a share, because the stops differ."""
    return [int(share * stop) for share, stop in zip(draws.uniform(purpose).tolist(), stops, strict=True)]
