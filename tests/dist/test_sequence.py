"""Attention on several ranks gives what one rank gives."""

from __future__ import annotations

import pytest
import sequence_cases
from worlds import run_world, worst

pytestmark = [pytest.mark.dist, pytest.mark.timeout(400)]

WORLDS = sorted(sequence_cases.DEGREES)
CASES = [(world, name) for world in WORLDS for name in sequence_cases.cases(world) if name.startswith("attention")]
BF16_LIMITS = {"ulysses": 4e-3, "ring": 2e-2}
FLOAT32_EPSILON = 2.0**-23


@pytest.mark.parametrize(("world", "name"), CASES)
def test_split_attention_is_whole_attention(world: int, name: str) -> None:
    results = run_world(world, "sequence_cases")[name]
    largest = results[0]["largest"]
    _, degrees, _, dtype, *_ = name.split("-")
    if dtype == "fp32":
        assert worst(results, "difference") <= 2e-6 * largest
        # One rank may be exact to the last bit by luck, as for a single key.
        assert worst(results, "error") <= 3 * worst(results, "whole_error") + FLOAT32_EPSILON * largest
    else:
        limit = BF16_LIMITS["ulysses" if degrees.endswith("x1") else "ring"]
        assert worst(results, "difference") <= limit * largest


@pytest.mark.parametrize("world", WORLDS)
def test_operation_keeps_the_compilers_contract(world: int) -> None:
    assert all(result["passed"] for result in run_world(world, "sequence_cases")["compiler"])


def test_a_lost_peer_is_named() -> None:
    left, gone = run_world(2, "sequence_cases")["lost peer"]
    assert gone["error"] == ""
    assert left["error"] == "ParallelError"
    assert "Rank 0 lost rank 1" in left["text"]


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_learn_of_a_flag_and_of_bytes(world: int) -> None:
    for result in run_world(world, "sequence_cases")["signals"]:
        assert result["any"] == [True, False]
        assert result["same"]
        assert result["empty"]
        assert result["refused"] == "Rank 0 sends 768 bytes, at most 767 are taken."
