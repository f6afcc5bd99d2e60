"""Drift: nothing where nothing differs, each measure sees its own fault, and what is normal is not a fault."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from livetalk_core.retrospective import Drift, appearance, measure_drift, sharpness
from livetalk_core.retrospective.drift import COLOR_STEP, SHARPNESS_STEP, SIMILARITY_STEP

pytestmark = pytest.mark.unit


def scene(frames: int = 12, size: tuple[int, int] = (96, 64)) -> Tensor:
    """Coarse coloured patches with some grain; a patch in the middle moves."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(1, 3, size[0] // 8, size[1] // 8, generator=generator) * 1.2 - 0.6
    picture = F.interpolate(patches, size=size, mode="bilinear") + torch.randn(1, 3, *size, generator=generator) * 0.02
    video = picture[:, :, None].repeat(1, 1, frames, 1, 1)
    for index in range(frames):
        top = size[0] // 3 + index % 5
        video[:, :, index, top : top + size[0] // 4, size[1] // 4 : -size[1] // 4] = (index % 3) * 0.2
    return video.clamp(-1, 1)


def test_a_chunk_has_not_drifted_from_itself() -> None:
    drift = measure_drift(scene(), appearance(scene()))
    assert drift.color == pytest.approx(0, abs=1e-4)
    assert (drift.sharpness, drift.similarity) == (pytest.approx(1), pytest.approx(1))
    assert drift.score < 1e-3


def test_a_cast_is_a_drift_of_colours_alone() -> None:
    cast = scene() + torch.tensor([0.12, 0.0, -0.12]).view(1, 3, 1, 1, 1)
    drift = measure_drift(cast, appearance(scene()))
    assert drift.score == drift.color / COLOR_STEP > 1
    assert drift.sharpness == pytest.approx(1, abs=0.02) and drift.similarity > 0.99


def test_noise_and_blur_are_drifts_of_sharpness_in_opposite_directions() -> None:
    video, anchor = scene(), appearance(scene())
    noisy = measure_drift(video + torch.randn(video.shape, generator=torch.Generator().manual_seed(1)) * 0.05, anchor)
    blurred = measure_drift(F.avg_pool3d(video, (1, 3, 3), 1, (0, 1, 1)), anchor)
    assert noisy.sharpness > 1.5 and blurred.sharpness < 0.7
    assert noisy.score > 1 and blurred.score > 1


def test_another_background_is_a_lost_similarity() -> None:
    video = scene()
    other = video.clone()
    for side in (slice(None, 16), slice(-16, None)):
        other[..., side] = video[..., side].flip(-2)
    drift = measure_drift(other, appearance(video))
    assert drift.similarity < 0.8 and drift.score >= (1 - drift.similarity) / SIMILARITY_STEP > 1


def test_what_moves_is_no_lost_similarity() -> None:
    video = scene()
    assert measure_drift(video, appearance(video[:, :, :1])).similarity > 0.95


def test_the_score_is_the_worst_measure_in_its_steps() -> None:
    assert Drift(COLOR_STEP / 2, 1.0, 1.0).score == pytest.approx(0.5)
    for ratio in (2**SHARPNESS_STEP, 2**-SHARPNESS_STEP):
        assert Drift(0.0, ratio, 1.0).score == pytest.approx(1.0)
    assert Drift(COLOR_STEP / 2, 1.0, 1 - 3 * SIMILARITY_STEP).score == pytest.approx(3.0)
    assert math.isfinite(Drift(0.0, 0.0, 1.0).score)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_pictures_and_number_formats_give_finite_drift(value: float, dtype: torch.dtype) -> None:
    flat = torch.full((1, 3, 4, 16, 16), value, dtype=dtype)
    assert math.isfinite(measure_drift(flat, appearance(flat[:, :, :1])).score)
    assert measure_drift(scene().to(dtype), appearance(scene().to(dtype))).score < 1e-3


def test_large_pictures_are_measured_in_small() -> None:
    large = F.interpolate(scene(3)[0], scale_factor=4, mode="nearest")[None]
    assert appearance(large).luma.shape == (96, 64)


def test_sharpness_of_a_checkerboard_is_four_times_its_contrast() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = ((rows + columns) % 2 * 0.5).expand(1, 3, 2, 8, 8)
    assert float(sharpness(board)) == pytest.approx(4 * 0.5 * 127.5)
