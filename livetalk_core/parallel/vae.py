"""The VAE on several ranks: every rank codes its tile, and the result is that of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from ..models.vae import GROUP_LATENTS, WanVideoVAE, to_uint8
from .groups import Groups
from .plan import Tile, TileGrid, choose_grid
from .split_plane import SplitPlane


class ParallelVAE(WanVideoVAE):
    """A `WanVideoVAE` whose work is shared: full tensors in, full tensors out, on every rank.

    All ranks call the same methods in the same order with the same tensors. The cut follows from each picture's
    size, so one object serves streams of any size. For inference only.

    Args:
        vae: The VAE of one rank; its weights are used in place.
        groups: The world.
    """

    def __init__(self, vae: WanVideoVAE, groups: Groups) -> None:
        super().__init__(vae.vae)
        self.to(vae.device)
        self._groups = groups
        self._grid_of = lru_cache(maxsize=16)(lambda size: choose_grid(groups.world, size))

    @torch.no_grad()
    def moments(self, video: Tensor, tail: int = 0) -> Tensor:
        """Video [B,3,F,H,W] -> un-normalised mean and log-variance [B,32,T,h,w]; see `WanVideoVAE.encode`."""
        stride = self.config.scale_factor_spatial
        grid = self._grid_of((video.shape[3] // stride, video.shape[4] // stride))
        tile = self._enter(grid)
        part = None if tile is None else super().moments(_cut(video, tile, stride), tail)
        frames = 1 + (video.shape[2] + tail - 1) // self.config.scale_factor_temporal
        return self._gather(part, grid, (video.shape[0], 2 * self.config.z_dim, frames), 1)

    @torch.no_grad()
    def decode_groups(self, latents: Tensor, group: int = GROUP_LATENTS) -> Iterator[Tensor]:
        """Un-normalised latents -> the video's frames in order, `group` latent frames' worth at a time."""
        grid = self._grid_of((latents.shape[3], latents.shape[4]))
        for part, frames in self._tile_groups(latents, grid, group):
            yield self._gather(part, grid, (latents.shape[0], 3, frames), self.config.scale_factor_spatial)

    @torch.no_grad()
    def decode_frames(self, latents: Tensor, group: int = GROUP_LATENTS) -> Iterator[Tensor | None]:
        """Un-normalised latents [1,16,T,h,w] -> uint8 frames [F,H,W,3] in order on rank 0, None on the others.

        A quarter of the bytes of `decode_groups` or less, to one rank: for pictures that nothing is computed from.
        """
        grid = self._grid_of((latents.shape[3], latents.shape[4]))
        for part, frames in self._tile_groups(latents, grid, group):
            pixels = None if part is None else to_uint8(part)
            full = self._gather(pixels, grid, (1, 3, frames), self.config.scale_factor_spatial, 0)
            yield full[0].permute(1, 2, 3, 0) if self._groups.rank == 0 else None

    def _tile_groups(self, latents: Tensor, grid: TileGrid, group: int) -> Iterator[tuple[Tensor | None, int]]:
        """This rank's part of every group of frames, and the group's number of frames."""
        tile = self._enter(grid)
        if tile is not None:
            for part in super().decode_groups(_cut(latents, tile, 1), group):
                yield part, part.shape[2]
            return
        for frames in self.group_frames(latents.shape[2], group):
            yield None, frames

    def _enter(self, grid: TileGrid) -> Tile | None:
        tile = grid.tile(self._groups.rank)
        if tile is not None:
            self.plane = SplitPlane(grid, self._groups)
        return tile

    def _gather(
        self, part: Tensor | None, grid: TileGrid, shape: tuple[int, int, int], stride: int, target: int | None = None
    ) -> Tensor:
        """The full tensor from every rank's tile, on all ranks or on `target` only.

        Args:
            part: This rank's tile [B,C,F,H,W]; None without one.
            grid: The cut.
            shape: B, C and F.
            stride: Pixels per cell.
            target: The rank that wants it; None for all.
        """
        groups, (batch, channels, frames) = self._groups, shape
        tiles = {rank: tile for rank in range(grid.tiles) if (tile := grid.tile(rank))}
        wanted = target is None or target == groups.rank
        dtype = self.dtype if target is None else torch.uint8
        received = {
            rank: torch.empty(
                (batch, frames, tile.height * stride, tile.width * stride, channels), dtype=dtype, device=self.device
            )
            for rank, tile in tiles.items()
            if wanted and rank != groups.rank
        }
        own = None if part is None else part.permute(0, 2, 3, 4, 1).contiguous()
        takers = range(groups.world) if target is None else (target,)
        sends = {} if own is None else {rank: own for rank in takers if rank != groups.rank}
        pending = groups.exchange(sends, received)
        height, width = sum(grid.heights) * stride, sum(grid.widths) * stride
        full = torch.empty(
            (batch, channels, frames, height, width) if wanted else (0,) * 5, dtype=dtype, device=self.device,
        )  # fmt: skip
        pending.wait()
        if own is not None:
            received[groups.rank] = own
        for rank, tile in tiles.items() if wanted else ():
            _cut(full, tile, stride).copy_(received[rank].permute(0, 4, 1, 2, 3))
        return full


def _cut(x: Tensor, tile: Tile, stride: int) -> Tensor:
    """The tile's part of [...,H,W] with `stride` pixels per cell."""
    return x[..., tile.top * stride : tile.bottom * stride, tile.left * stride : tile.right * stride]
