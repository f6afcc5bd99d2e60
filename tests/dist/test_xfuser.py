"""The xfuser backend gives what the torch backend gives, or is refused."""

from __future__ import annotations

import pytest
import xfuser_shim
from worlds import run_world, worst

pytestmark = [
    pytest.mark.dist,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(xfuser_shim.missing()), reason=xfuser_shim.missing() or "installed"),
]


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_xfuser_agrees_with_torch(world: int) -> None:
    results = run_world(world, "xfuser_cases")
    compared = {name: ranks for name, ranks in results.items() if name not in ("wrong", "fails_on_one")}
    assert compared
    for name, ranks in compared.items():
        assert worst(ranks, "difference") <= 2e-6, name
        assert all(rank["chosen"] == "XFuserSequence" for rank in ranks)
        # Without a GPU torch's own collectives are the better choice.
        assert all(rank["automatic"] == "SequenceParallel" for rank in ranks)
        assert all(rank["own_ring"] == name.endswith("xfuser") for rank in ranks)


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_backend_that_computes_something_else_is_refused(world: int) -> None:
    for rank in run_world(world, "xfuser_cases")["wrong"]:
        assert "xfuser differs from torch by" in rank["error"]


def test_a_backend_that_fails_on_one_rank_is_refused_on_all() -> None:
    first, second = run_world(2, "xfuser_cases")["fails_on_one"]
    assert "xfuser failed (RuntimeError: no kernel image)" in first["error"]
    assert "xfuser failed on another rank" in second["error"]
