"""Who computes what: attention degrees, token slices and VAE tiles of every rank; no process group, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from ..errors import ConfigError


@dataclass(frozen=True)
class Tile:
    """One rank's part of the picture, in latent cells: rows [top, bottom), columns [left, right)."""

    row: int
    column: int
    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """In latent cells."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """In latent cells."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """In latent cells."""
        return self.height * self.width


@dataclass(frozen=True)
class TileGrid:
    """A picture of latent cells cut into rows and columns of whole cells.

    Attributes:
        heights: Cells of every row of tiles.
        widths: Cells of every column of tiles.
    """

    heights: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return len(self.heights)

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return len(self.widths)

    @property
    def tiles(self) -> int:
        """Ranks that have one."""
        return self.rows * self.columns

    @property
    def cut(self) -> int:
        """Length of all cuts, in cells: what neighbours exchange."""
        return (self.rows - 1) * sum(self.widths) + (self.columns - 1) * sum(self.heights)

    def rank(self, row: int, column: int) -> int | None:
        """The rank at a place of the grid; None outside the picture."""
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        return row * self.columns + column if inside else None

    def tile(self, rank: int) -> Tile | None:
        """The tile of a rank, row by row; None for a rank that has none."""
        if not 0 <= rank < self.tiles:
            return None
        row, column = divmod(rank, self.columns)
        top, left = sum(self.heights[:row]), sum(self.widths[:column])
        return Tile(row, column, top, top + self.heights[row], left, left + self.widths[column])

    def largest_tile(self) -> int:
        """Cells of the tile that all others wait for."""
        return max(self.heights) * max(self.widths)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


@dataclass(frozen=True)
class ParallelPlan:
    """How `world` ranks share one chunk.

    Ranks are numbered ulysses first: rank = ring index * ulysses + ulysses index. Every rank has
    `tokens_per_rank` places; places behind the last token are padding, which only the last ranks have.

    Attributes:
        world: Number of ranks.
        heads: Attention heads of the transformer.
        tokens: Tokens of a chunk.
        latent_hw: Height and width of the latents.
        ulysses: Ranks that exchange heads for tokens.
        ring: Groups of them that pass keys and values on.
        grid: Tiles of the VAE; ranks beyond its last tile have no part in the VAE.
    """

    world: int
    heads: int
    tokens: int
    latent_hw: tuple[int, int]
    ulysses: int
    ring: int
    grid: TileGrid

    @property
    def tokens_per_rank(self) -> int:
        """Places for tokens on every rank; the last ones may be padding."""
        return places_per_rank(self.tokens, self.world)

    @property
    def padding(self) -> int:
        """Places without a token, over all ranks."""
        return self.tokens_per_rank * self.world - self.tokens

    def token_range(self, rank: int) -> tuple[int, int]:
        """First and one past last token of a rank; equal for a rank without tokens."""
        return token_range(self.tokens, self.world, rank)


def places_per_rank(tokens: int, world: int) -> int:
    """ceil(tokens / world)."""
    return -(-tokens // world)


def token_range(tokens: int, world: int, rank: int) -> tuple[int, int]:
    """First and one past last real token of a rank."""
    places = places_per_rank(tokens, world)
    return min(rank * places, tokens), min((rank + 1) * places, tokens)


def block_lengths(tokens: int, ulysses: int, ring: int) -> tuple[int, ...]:
    """Real tokens of every ring index: of the `ulysses` ranks that hold one block of the sequence."""
    starts = [token_range(tokens, ulysses * ring, block * ulysses)[0] for block in range(ring)]
    return tuple(stop - start for start, stop in zip(starts, [*starts[1:], tokens], strict=True))


def make_plan(
    world: int,
    heads: int,
    tokens: int,
    latent_hw: tuple[int, int],
    *,
    ulysses: int | None = None,
    ring: int | None = None,
) -> ParallelPlan:
    """Plan a chunk.

    Args:
        world: Number of ranks.
        heads: Attention heads of the transformer.
        tokens: Tokens of a chunk.
        latent_hw: Height and width of the latents.
        ulysses: Degree, None for the greatest common divisor of world and heads.
        ring: Degree, None for world / ulysses.

    Raises:
        ConfigError: what was asked for cannot be; the message has the equation that fails.
    """
    for name, value in (("world", world), ("heads", heads), ("tokens", tokens)):
        if value < 1:
            raise ConfigError(f"{name} is {value}.", "It must be 1 or more.", setting=name)
    require_work(world, tokens)
    ulysses, ring = _degrees(world, heads, ulysses, ring)
    return ParallelPlan(world, heads, tokens, latent_hw, ulysses, ring, choose_grid(world, latent_hw))


def require_work(world: int, tokens: int) -> None:
    """Raise ConfigError if a chunk has fewer tokens than there are ranks."""
    if world > tokens:
        raise ConfigError(
            f"{tokens} tokens / {world} ranks is less than one.",
            "Use fewer ranks or a larger picture.",
            setting="world",
        )


def plan_tokens(frames: int, latent_hw: tuple[int, int], patch: tuple[int, int, int] = (1, 2, 2)) -> int:
    """Tokens of `frames` latent frames.

    Raises:
        ConfigError: the latents do not divide into patches.
    """
    sizes = (frames, *latent_hw)
    for name, size, side in zip(("frames", "height", "width"), sizes, patch, strict=True):
        if size < 1 or size % side:
            raise ConfigError(
                f"{size} latent {name} / {side} per patch leaves a remainder.",
                "Use a width and height in pixels that are multiples of 16.", setting=name,
            )  # fmt: skip
    return math.prod(size // side for size, side in zip(sizes, patch, strict=True))


def choose_grid(world: int, latent_hw: tuple[int, int]) -> TileGrid:
    """The grid of at most `world` tiles whose largest tile is smallest, then with the shortest cuts.

    A world that fits no grid (7 ranks, 4x4 cells) leaves ranks without a tile rather than cells without a rank.
    """
    height, width = latent_hw
    if height < 1 or width < 1:
        raise ConfigError(f"The latents are {height}x{width}.", "Both sides must be 1 or more.", setting="size")
    grids = [
        TileGrid(even_parts(height, rows), even_parts(width, columns))
        for rows in range(1, min(world, height) + 1)
        for columns in range(1, min(world // rows, width) + 1)
    ]
    # Rows of pixels are contiguous in memory, so among equals more rows than columns.
    return min(grids, key=lambda grid: (grid.largest_tile(), grid.cut, grid.columns))


def even_parts(total: int, parts: int) -> tuple[int, ...]:
    """`total` cells as `parts` numbers that differ by at most one, the larger ones first."""
    edges = [-(-total * part // parts) for part in range(parts + 1)]
    return tuple(sorted((b - a for a, b in pairwise(edges)), reverse=True))


def _degrees(world: int, heads: int, ulysses: int | None, ring: int | None) -> tuple[int, int]:
    """Both degrees, if their product is the world and ulysses divides the heads."""
    if ulysses is not None:
        _require_degree("ulysses", ulysses)
    if ring is not None:
        _require_degree("ring", ring)
    if ulysses is None:
        ulysses = math.gcd(world, heads) if ring is None else max(1, world // ring)
    if ring is None:
        ring = max(1, world // ulysses)
    if ulysses * ring != world:
        raise ConfigError(
            f"ulysses {ulysses} x ring {ring} = {ulysses * ring}, but there are {world} ranks.",
            "Choose degrees whose product is the number of ranks, or leave them out.", setting="ulysses",
        )  # fmt: skip
    if heads % ulysses:
        raise ConfigError(
            f"{heads} heads / ulysses {ulysses} leaves {heads % ulysses}.",
            f"Choose a ulysses degree that divides both: {math.gcd(world, heads)} does.", setting="ulysses",
        )  # fmt: skip
    return ulysses, ring


def _require_degree(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} is {value}.", "A degree is 1 or more.", setting=name)
