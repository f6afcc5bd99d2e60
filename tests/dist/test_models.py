"""Transformer, VAE and engine on several ranks give what one rank gives."""

from __future__ import annotations

from typing import Any

import pytest
from model_cases import DEGREES, cases
from worlds import run_world, worst

pytestmark = [pytest.mark.dist, pytest.mark.timeout(400)]

WORLDS = sorted(DEGREES)
TRANSFORMERS = [(world, name) for world in WORLDS for name in cases(world) if name.startswith("transformer")]
VAES = [(world, name) for world in WORLDS for name in cases(world) if name.startswith("vae")]


def _results(world: int, name: str) -> list[dict[str, Any]]:
    return run_world(world, "model_cases")[name]


@pytest.mark.parametrize(("world", "name"), TRANSFORMERS)
def test_split_transformer_is_whole_transformer(world: int, name: str) -> None:
    results = _results(world, name)
    assert results[0]["largest"] > 0.1
    assert worst(results, "difference") <= 2e-6 * results[0]["largest"]
    assert worst(results, "repeat") == 0


def test_transformer_cases_include_uneven_and_empty_ranks() -> None:
    counts = {case: [rank["tokens"] for rank in _results(*case)] for case in TRANSFORMERS}
    assert any(len(set(tokens)) == 1 for tokens in counts.values())
    assert any(0 < min(tokens) < max(tokens) for tokens in counts.values())
    assert any(min(tokens) == 0 for tokens in counts.values())


@pytest.mark.parametrize(("world", "name"), VAES)
def test_split_vae_is_whole_vae(world: int, name: str) -> None:
    results = _results(world, name)
    assert min(results[0]["spread"], results[0]["encoded_spread"]) > 0.01
    assert max(worst(results, "precise"), worst(results, "precise_encode")) <= 1e-12, "the same function"
    for key in ("decode", "decode_raw", "encode", "still"):
        assert worst(results, key) <= 1e-5, key
    assert results[0]["groups"] == [13, 8]
    assert [result["frames"] for result in results] == [21] + [0] * (world - 1)
    # A value halfway between two integers may round either way.
    assert results[0]["eight_bit"] <= 1
    assert results[0]["tiled"] == 0, "approximate, but the same on any number of ranks"


def test_vae_cases_include_all_kinds_of_grids() -> None:
    grids = {_results(world, name)[0]["grid"] for world, name in VAES}
    assert {"2x1", "1x2", "2x2", "3x1"} <= grids


@pytest.mark.parametrize("world", WORLDS)
def test_videos_decoded_in_turn_do_not_disturb_each_other(world: int) -> None:
    assert all(result["same"] for result in _results(world, "interleaved"))


@pytest.mark.parametrize("world", WORLDS)
def test_engine_makes_the_same_frames(world: int) -> None:
    results = _results(world, "engine")
    assert results[0]["spread"] > 1
    for result in results:
        assert result["identical"] >= 0.999
        assert result["largest"] <= 1


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_that_differ_are_named(world: int) -> None:
    for result in _results(world, "disagreement"):
        for kind, text in result["found"]:
            assert kind == "ParallelError"
            assert f"rank {world - 1} differs" in text


@pytest.mark.parametrize("world", WORLDS)
def test_plan_for_another_world_is_refused(world: int) -> None:
    assert all(result["error"] == "ConfigError" for result in _results(world, "wrong_plan"))
