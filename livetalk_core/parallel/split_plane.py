"""The plane operations of the VAE for a picture cut into tiles, one per rank; exact."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.vae_layers import room_around, row_attention
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

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int, past: Tensor | None = None) -> Tensor:
        """See `PlaneOperations.pad`. The past brings its borders along: only those of x go round."""
        row, column, grid = self.tile.row, self.tile.column, self.grid
        height, width = x.shape[-2:]
        whole, fresh = room_around(x, left, right, top, bottom, past)
        # Channel last, as the memory is: a border is then one block per frame (a row) or per pixel (a column).
        planes, source = fresh.permute(0, 2, 3, 4, 1), x.permute(0, 2, 3, 4, 1)
        inner = planes[:, :, top : top + height]
        columns = (grid.rank(row, column - 1), grid.rank(row, column + 1))
        rows = (grid.rank(row - 1, column), grid.rank(row + 1, column))
        if len(grid.widths) == 1:
            # Nothing comes from the sides: the rows are under way while the rest is put in place.
            for first, count in ((0, left), (left + width, right)):
                planes.narrow(3, first, count).zero_()
            down = _Border(source, planes.narrow(3, left, width), 2, (top, bottom), rows, self._groups)
            inner[:, :, :, left : left + width] = source
            down.finish()
            return whole
        across = _Border(source, inner, 3, (left, right), columns, self._groups)
        inner[:, :, :, left : left + width] = source
        across.finish()
        _Border(inner, planes, 2, (top, bottom), rows, self._groups).finish()
        return whole

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the tile's positions over those of all tiles; q, k, v are [T, 1, H*W, C]."""
        own = torch.stack([k, v]).contiguous()
        cell = own.shape[3] // self.tile.area  # positions per latent cell
        tiles = {rank: tile for rank in range(self.grid.tiles) if (tile := self.grid.tile(rank))}
        others = {
            rank: own.new_empty((*own.shape[:3], cell * tile.area, own.shape[4]))
            for rank, tile in tiles.items()
            if rank != self._groups.rank
        }
        self._groups.exchange(dict.fromkeys(others, own), others).wait()
        parts = {**others, self._groups.rank: own}
        # In the picture's order, so that the sum over positions is rounded as on one rank.
        side = math.isqrt(cell)
        return row_attention(q, *self._assemble(parts, tiles, side))

    def _assemble(self, parts: dict[int, Tensor], tiles: dict[int, Tile], side: int) -> Tensor:
        """All tiles' positions [..., h*w, C] put together as one picture [..., H*W, C]; `side` positions per cell."""
        own = parts[self._groups.rank]
        height, width = sum(self.grid.heights) * side, sum(self.grid.widths) * side
        whole = own.new_empty((*own.shape[:3], height, width, own.shape[4]))
        for rank, tile in tiles.items():
            rows, columns = ((tile.top * side, tile.height * side), (tile.left * side, tile.width * side))
            place = whole.narrow(3, *rows).narrow(4, *columns)
            place.copy_(parts[rank].unflatten(3, (rows[1], columns[1])))
        return whole.flatten(3, 4)


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
