"""The plane operations of the VAE for a picture cut into tiles, one per rank; exact."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .groups import Groups
from .plan import Tile, TileGrid


class SplitPlane:
    """This rank's tile of a plane; implements `models.vae_layers.PlaneOperations`.

    The borders of all frames go to a neighbour in one message: first columns, then rows that include the corner
    pixels just received. For inference: no gradient passes through.

    Args:
        grid: The cut.
        groups: The world; every rank with a tile runs the same operations in the same order.

    Raises:
        ConfigError: this rank has no tile.
    """

    def __init__(self, grid: TileGrid, groups: Groups) -> None:
        tile = grid.tile(groups.rank)
        if tile is None:
            raise ConfigError(f"Rank {groups.rank} has no tile in a {grid} grid.", rank=groups.rank)
        self.grid, self.tile, self._groups = grid, tile, groups

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        """Surround every plane of x [B,C,T,H,W] by the neighbours' pixels, zeros at the picture's edge."""
        row, column, grid = self.tile.row, self.tile.column, self.grid
        batch, channels, frames, height, width = x.shape
        size = (batch, channels, frames, height + top + bottom, width + left + right)
        out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
        # Channel last, as the memory is: a border is then one block per frame (a row) or per pixel (a column).
        planes, source = out.permute(0, 2, 3, 4, 1), x.permute(0, 2, 3, 4, 1)
        inner = planes[:, :, top : top + height]
        columns = (grid.rank(row, column - 1), grid.rank(row, column + 1))
        across = _Border(source, inner, 3, (left, right), columns, self._groups)
        inner[:, :, :, left : left + width] = source
        across.finish()
        rows = (grid.rank(row - 1, column), grid.rank(row + 1, column))
        _Border(inner, planes, 2, (top, bottom), rows, self._groups).finish()
        return out

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the tile's positions over those of all tiles; q, k, v are [T, 1, H*W, C]."""
        own = torch.stack([k, v]).contiguous()
        parts: dict[int, Tensor] = {}
        for rank in range(self.grid.tiles):
            positions = own.shape[3] * _area(self.grid, rank) // self.tile.area
            parts[rank] = own if rank == self._groups.rank else own.new_empty((*own.shape[:3], positions, own.shape[4]))
        others = [rank for rank in parts if rank != self._groups.rank]
        self._groups.exchange(dict.fromkeys(others, own), {rank: parts[rank] for rank in others}).wait()
        # The order of the positions does not matter to the sum over them.
        keys, values = torch.cat([parts[rank] for rank in sorted(parts)], dim=3)
        return F.scaled_dot_product_attention(q, keys, values)


class _Border:
    """Both borders of a plane along one axis, on their way from the neighbours into `target`.

    `source` and `target` are [B,T,H,W,C] and differ along `axis` only: target has `before` and `after` more.
    """

    def __init__(
        self,
        source: Tensor,
        target: Tensor,
        axis: int,
        extent: tuple[int, int],
        neighbours: tuple[int | None, int | None],
        groups: Groups,
    ) -> None:
        before, after = extent
        length = source.shape[axis]
        previous, following = neighbours
        sends: dict[int, Tensor] = {}
        self._target: dict[int, Tensor] = {}
        self._received: dict[int, Tensor] = {}
        # What the previous tile needs behind itself is our beginning, and the other way round.
        first, last = source.narrow(axis, 0, after), source.narrow(axis, length - before, before)
        sides = (
            (previous, before, target.narrow(axis, 0, before), first),
            (following, after, target.narrow(axis, before + length, after), last),
        )
        for rank, width, place, gift in sides:
            if rank is None:
                place.zero_()
                continue
            if gift.numel():
                sends[rank] = gift.contiguous()
            if width:
                self._target[rank] = place
                self._received[rank] = torch.empty_like(place, memory_format=torch.contiguous_format)
        self._pending = groups.exchange(sends, self._received)

    def finish(self) -> None:
        """Wait for the borders and put them in place."""
        self._pending.wait()
        for rank, place in self._target.items():
            place.copy_(self._received[rank])


def _area(grid: TileGrid, rank: int) -> int:
    tile: Tile | None = grid.tile(rank)
    return 0 if tile is None else tile.area
