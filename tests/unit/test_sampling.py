"""Timesteps, noise and the few-step loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from livetalk_core.config import SamplerConfig
from livetalk_core.sampling import (
    PhiloxNoise,
    RecordedNoise,
    motion_buffer,
    paste_motion,
    sample,
    timesteps,
)

pytestmark = pytest.mark.unit

SHAPE = (1, 4, 5, 2, 3)
# The noise of a stream is part of its file format: a change here breaks every seed.
GOLDEN = (
    [0.4236774146556854, -0.8656906485557556, -0.15193238854408264],
    [-0.06025116145610809, -0.334028035402298, 0.4783249795436859],
    [0.9826168417930603, 0.42304491996765137, 0.2539793848991394],
)


def test_published_timesteps() -> None:
    assert timesteps(SamplerConfig(steps=4)).tolist() == pytest.approx(
        [1000, 937.5, 833.33331, 625, 0], abs=1e-4
    )
    assert timesteps(SamplerConfig(steps=2)).tolist() == pytest.approx([1000, 833.33331, 0], abs=1e-4)
    assert timesteps(SamplerConfig(steps=1)).tolist() == [1000, 0]
    assert timesteps(SamplerConfig(steps=4, shift=1)).tolist() == [1000, 750, 500, 250, 0]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 12, 40])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_timesteps_fall_strictly_to_zero(steps: int, shift: float) -> None:
    levels = timesteps(SamplerConfig(steps=steps, shift=shift))
    assert levels.dtype == torch.float32 and levels.shape == (steps + 1,)
    assert levels[0] == 1000 and levels[-1] == 0
    assert bool((levels.diff() < 0).all())


def test_noise_is_a_function_of_seed_chunk_and_draw() -> None:
    noise = PhiloxNoise(7)
    first = noise.draw(3, 1, (2, 3))
    noise.draw(4, 0, (50,))
    assert torch.equal(noise.draw(3, 1, (2, 3)), first)
    others = [PhiloxNoise(8).draw(3, 1, (2, 3)), noise.draw(4, 1, (2, 3)), noise.draw(3, 2, (2, 3))]
    assert all(not torch.equal(other, first) for other in others)


def test_noise_of_neighbouring_chunks_does_not_overlap() -> None:
    noise = PhiloxNoise(0)
    draws = torch.cat([noise.draw(chunk, draw, (400,)) for chunk in range(3) for draw in range(3)])
    assert len(torch.unique(draws)) > 0.999 * len(draws)
    assert abs(float(draws.mean())) < 0.06 and abs(float(draws.std()) - 1) < 0.06


def test_golden_noise() -> None:
    expected = {
        (9999, 0, 0): GOLDEN[0],
        (9999, 1, 4): GOLDEN[1],
        (2**64 - 1, 100_000, 2): GOLDEN[2],
    }
    for (seed, chunk, draw), values in expected.items():
        assert PhiloxNoise(seed).draw(chunk, draw, (3,)).tolist() == values


def test_recorded_noise_takes_the_shape_asked_for() -> None:
    noise = RecordedNoise({(0, 1): torch.arange(6.0)})
    assert noise.draw(0, 1, (1, 2, 3)).tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("known", [1, 2])
def test_motion_latents_stay_clean_in_every_step(known: int) -> None:
    motion = torch.full((1, 4, known, 2, 3), 5.0)
    buffer, mask = motion_buffer(motion, SHAPE[2])
    seen: list[Tensor] = []

    def velocity(latents: Tensor, level: Tensor) -> Tensor:
        return torch.ones_like(latents)

    levels = timesteps(SamplerConfig())
    noise = PhiloxNoise(0)
    result = sample(
        velocity, torch.zeros(SHAPE), levels, buffer, mask,
        lambda index: noise.draw(0, index, SHAPE), lambda step, latents, v: seen.append(latents),
    )  # fmt: skip
    assert len(seen) == 4
    assert all(torch.equal(latents[:, :, :known], motion) for latents in [*seen, result])
    assert not torch.equal(seen[1][:, :, known:], seen[2][:, :, known:])


def test_a_perfect_model_is_sampled_to_its_data_in_any_number_of_steps() -> None:
    data = PhiloxNoise(1).draw(0, 9, SHAPE)
    buffer, mask = motion_buffer(torch.zeros(1, 4, 1, 2, 3), SHAPE[2])
    for steps in (1, 2, 4, 7):
        levels = timesteps(SamplerConfig(steps=steps))

        def velocity(latents: Tensor, level: Tensor) -> Tensor:
            return (latents - data) / (level / 1000)

        result = sample(
            velocity, PhiloxNoise(2).draw(0, 0, SHAPE), levels, buffer, mask,
            lambda index: PhiloxNoise(2).draw(0, index, SHAPE),
        )  # fmt: skip
        assert torch.allclose(result[:, :, 1:], data[:, :, 1:], atol=1e-5)


def test_the_noise_after_the_last_step_is_not_drawn() -> None:
    asked: list[int] = []

    def draw(index: int) -> Tensor:
        asked.append(index)
        return torch.zeros(SHAPE)

    buffer, mask = motion_buffer(torch.zeros(1, 4, 1, 2, 3), SHAPE[2])
    levels = timesteps(SamplerConfig(steps=4))
    sample(lambda latents, level: latents.float(), torch.zeros(SHAPE), levels, buffer, mask, draw)
    assert asked == [1, 2, 3]


def test_half_precision_start_becomes_float32_after_the_first_step() -> None:
    dtypes: list[torch.dtype] = []
    buffer, mask = motion_buffer(torch.zeros(1, 4, 1, 2, 3, dtype=torch.bfloat16), SHAPE[2])
    result = sample(
        lambda latents, level: latents.float(), torch.ones(SHAPE, dtype=torch.bfloat16),
        timesteps(SamplerConfig()), buffer, mask, lambda index: torch.zeros(SHAPE),
        lambda step, latents, v: dtypes.append(latents.dtype),
    )  # fmt: skip
    assert dtypes == [torch.bfloat16, torch.float32, torch.float32, torch.float32]
    assert result.dtype == torch.float32


def test_pasting_keeps_the_dtype_of_the_latents() -> None:
    latents = torch.zeros(SHAPE, dtype=torch.bfloat16)
    buffer, mask = motion_buffer(torch.ones(1, 4, 2, 2, 3), SHAPE[2])
    pasted = paste_motion(latents, buffer, mask)
    assert pasted.dtype == torch.bfloat16
    assert float(pasted.sum()) == 1 * 4 * 2 * 2 * 3
