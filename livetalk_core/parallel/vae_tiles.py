"""Approximate decoding in overlapping tiles: less memory and nothing to exchange within a layer, but seams may show.

Every tile is decoded as if it were a whole picture; where tiles overlap they are blended. Whoever wants the function
of the VAE itself uses `ParallelVAE`, which splits it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.vae import GROUP_LATENTS, WanVideoVAE, to_uint8
from .groups import Groups

TILE, OVERLAP = 32, 8
"""Latent cells along a side of a tile, and those that it shares with the next one: 256 and 64 pixels."""

Span = tuple[int, int]


def tile_spans(size: int, tile: int = TILE, overlap: int = OVERLAP) -> list[Span]:
    """First and one past last cell of every tile along a side; all equally long, the last flush with the end."""
    if size <= tile:
        return [(0, size)]
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    return [(start, start + tile) for start in starts]


class TiledVAE:
    """Decodes like a `WanVideoVAE`, in tiles that the ranks share out among them.

    Args:
        vae: Of one rank, with all weights.
        groups: The world.
        tile, overlap: See `TILE`.
    """

    def __init__(self, vae: WanVideoVAE, groups: Groups, tile: int = TILE, overlap: int = OVERLAP) -> None:
        self._vae, self._groups, self._tile, self._overlap = vae, groups, tile, overlap

    @torch.no_grad()
    def decode_frames(self, latents: Tensor, group: int = GROUP_LATENTS) -> Iterator[Tensor | None]:
        """Un-normalised latents [1,16,T,h,w] -> uint8 frames [F,H,W,3] in order on rank 0, None on the others."""
        rows, columns = (tile_spans(size, self._tile, self._overlap) for size in latents.shape[3:])
        places = [(row, column) for row in rows for column in columns]
        mine = places[self._groups.rank :: self._groups.world]
        ours = [self._vae.decode_groups(_cut(latents, place), group) for place in mine]
        for frames in self._vae.group_frames(latents.shape[2], group):
            parts = self._collect([next(tile) for tile in ours], places, frames)
            yield None if parts is None else to_uint8(self._blend(parts, rows, columns))[0].permute(1, 2, 3, 0)

    def _collect(self, ours: Sequence[Tensor], places: list[tuple[Span, Span]], frames: int) -> list[Tensor] | None:
        """All tiles in the order of their places on rank 0; None on the others."""
        groups, world, stride = self._groups, self._groups.world, self._vae.config.scale_factor_spatial
        if groups.rank:
            groups.exchange({0: torch.stack(tuple(ours)).contiguous()} if ours else {}, {}).wait()
            return None
        height, width = (stop - start for start, stop in places[0])
        counts = {rank: len(places[rank::world]) for rank in range(1, world)}
        shape = (1, 3, frames, height * stride, width * stride)
        received = {
            rank: torch.empty((count, *shape), dtype=self._vae.dtype, device=self._vae.device)
            for rank, count in counts.items()
            if count
        }
        groups.exchange({}, received).wait()
        held: dict[int, Any] = {0: ours, **received}
        return [held[index % world][index // world] for index in range(len(places))]

    def _blend(self, parts: list[Tensor], rows: list[Span], columns: list[Span]) -> Tensor:
        """Overlapping tiles -> the whole video; each tile fades out towards its neighbours."""
        stride = self._vae.config.scale_factor_spatial
        down, across = (self._weights(spans, stride).to(self._vae.device) for spans in (rows, columns))
        shape = (*parts[0].shape[:3], rows[-1][1] * stride, columns[-1][1] * stride)
        whole = torch.zeros(shape, device=self._vae.device)
        for index, part in enumerate(parts):
            row, column = divmod(index, len(columns))
            weight = down[row].view(-1, 1) * across[column].view(1, -1)
            _cut(whole, (rows[row], columns[column]), stride).add_(part.float() * weight)
        return whole

    def _weights(self, spans: list[Span], stride: int) -> Tensor:
        """Share of each tile in each of its pixels along a side, [tiles, pixels]; over all tiles they add up to 1."""
        length = (spans[0][1] - spans[0][0]) * stride
        ramp = torch.arange(length, dtype=torch.float32) + 0.5
        tent = torch.minimum(ramp, ramp.flip(0))
        total = torch.zeros(spans[-1][1] * stride)
        for start, stop in spans:
            total[start * stride : stop * stride] += tent
        return torch.stack([tent / total[start * stride : stop * stride] for start, stop in spans])


def _cut(x: Tensor, place: tuple[Span, Span], stride: int = 1) -> Tensor:
    (top, bottom), (left, right) = place
    return x[..., top * stride : bottom * stride, left * stride : right * stride]
