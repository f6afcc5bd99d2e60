"""The growth of memory is a slope that shows leaks and forgives steps."""

from __future__ import annotations

import numpy as np
import pytest

from livetalk_core.diagnostics.memory import GROWTH_CHUNKS, growth_per_100

pytestmark = pytest.mark.unit

MB = 10**6


def noisy(count: int, leak: float) -> list[int]:
    """Resident sets with `leak` bytes more per chunk, noise of the allocator, and a step while it warms up."""
    rng = np.random.default_rng(0)
    values = 600 * MB + leak * np.arange(count) + rng.normal(0, 0.3 * MB, count)
    values[count // 10 :] += 5 * MB
    values[rng.integers(0, count, count // 50)] += 30 * MB
    return [int(value) for value in values]


@pytest.mark.parametrize("count", [150, 500, 3000])
def test_a_leak_shows_in_full_and_a_step_does_not(count: int) -> None:
    still, leaking = growth_per_100(noisy(count, 0)), growth_per_100(noisy(count, 0.05 * MB))
    assert still is not None and leaking is not None
    assert leaking - still == pytest.approx(5 * MB, rel=1e-3)
    # The two ends are 5 MB apart.
    assert abs(still) <= 0.1 * 5 * MB * 100 / count


def test_a_straight_line_is_its_slope() -> None:
    assert growth_per_100(range(0, 7 * GROWTH_CHUNKS, 7)) == pytest.approx(700)


def test_few_chunks_tell_nothing() -> None:
    assert growth_per_100([0] * (GROWTH_CHUNKS - 1)) is None
