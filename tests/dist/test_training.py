"""Two ranks train what one rank trains."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import run_world

pytestmark = [pytest.mark.dist, pytest.mark.timeout(600)]


def _results(world: int, name: str) -> list[dict[str, Any]]:
    return run_world(world, "training_cases")[name]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_ranks_have_the_losses_of_one(stage: str) -> None:
    (alone,), together = _results(1, stage), _results(2, stage)
    for rank in together:
        for ours, theirs in zip(rank["values"], alone["values"], strict=True):
            assert ours.keys() == theirs.keys()
            assert all(abs(ours[name] - theirs[name]) <= 1e-5 * max(1.0, abs(theirs[name])) for name in ours)
        # Adam divides by small numbers: weights agree less closely than losses.
        assert rank["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert alone["values"][0] != alone["values"][-1]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_every_rank_holds_a_part(stage: str) -> None:
    (alone,), together = _results(1, stage), _results(2, stage)
    assert sum(rank["local"] for rank in together) == alone["local"]
    assert max(rank["local"] for rank in together) < 0.6 * alone["local"]


def test_a_world_continues_its_own_checkpoint_exactly() -> None:
    for rank in _results(2, "checkpoint"):
        assert rank["resumed"] == rank["went_on"]
