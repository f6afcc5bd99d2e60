"""Every plan shares all tokens and all cells out, once each, for any world and size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetalk_core.parallel.plan import block_lengths, choose_grid, even_parts, make_plan

pytestmark = pytest.mark.property

WORLDS = st.integers(1, 24)
SIDES = st.integers(1, 40)


@given(world=WORLDS, heads=st.integers(1, 48), more=st.integers(0, 20_000))
def test_tokens_are_shared_out_in_order(world: int, heads: int, more: int) -> None:
    tokens = world + more
    plan = make_plan(world, heads, tokens, (8, 8))
    assert plan.ulysses * plan.ring == world
    assert heads % plan.ulysses == 0
    position = 0
    for rank in range(world):
        start, stop = plan.token_range(rank)
        assert start == position
        assert 0 <= stop - start <= plan.tokens_per_rank
        # Only behind the last token is there padding.
        assert stop - start == plan.tokens_per_rank or stop == tokens
        position = stop
    assert position == tokens
    assert 0 <= plan.padding < world * plan.tokens_per_rank


@given(ulysses=st.integers(1, 8), ring=st.integers(1, 8), more=st.integers(0, 500))
def test_blocks_hold_the_tokens_of_their_ranks(ulysses: int, ring: int, more: int) -> None:
    tokens = ulysses * ring + more
    plan = make_plan(ulysses * ring, ulysses, tokens, (8, 8), ulysses=ulysses, ring=ring)
    counts = [stop - start for start, stop in map(plan.token_range, range(plan.world))]
    expected = tuple(sum(counts[block * ulysses : (block + 1) * ulysses]) for block in range(ring))
    assert block_lengths(tokens, ulysses, ring) == expected
    assert sum(expected) == tokens


@given(total=st.integers(1, 300), parts=st.integers(1, 24))
def test_even_parts_differ_by_at_most_one(total: int, parts: int) -> None:
    sizes = even_parts(total, parts)
    assert len(sizes) == parts
    assert sum(sizes) == total
    assert max(sizes) - min(sizes) <= 1
    assert list(sizes) == sorted(sizes, reverse=True)


@given(world=WORLDS, height=SIDES, width=SIDES)
def test_every_cell_has_one_tile_and_neighbours_fit(world: int, height: int, width: int) -> None:
    grid = choose_grid(world, (height, width))
    assert 1 <= grid.tiles <= world
    owners: dict[tuple[int, int], int] = {}
    for rank in range(world):
        tile = grid.tile(rank)
        if tile is None:
            assert rank >= grid.tiles
            continue
        assert tile.height >= 1
        assert tile.width >= 1
        assert tile.area <= grid.largest_tile()
        assert grid.rank(tile.row, tile.column) == rank
        for row in range(tile.top, tile.bottom):
            for column in range(tile.left, tile.right):
                assert (row, column) not in owners
                owners[row, column] = rank
    assert len(owners) == height * width


@given(world=WORLDS, height=SIDES, width=SIDES)
def test_no_other_grid_has_a_smaller_largest_tile(world: int, height: int, width: int) -> None:
    chosen = choose_grid(world, (height, width)).largest_tile()
    for rows in range(1, min(world, height) + 1):
        for columns in range(1, min(world // rows, width) + 1):
            assert chosen <= -(-height // rows) * -(-width // columns)
