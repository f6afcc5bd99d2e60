"""Colour match: colours move to the reference, nothing else does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from livetalk_core.retrospective import color_reference, match_color, motion_latents

pytestmark = pytest.mark.unit


def picture(seed: int, frames: int = 1, low: float = -0.6, high: float = 0.6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, frames, 12, 16, generator=generator) * (high - low) + low


def test_a_video_in_the_colours_of_its_reference_stays_the_same() -> None:
    video = picture(0)
    assert torch.allclose(match_color(video, color_reference(video), 1.0), video, atol=2e-5)


def test_matched_frames_have_the_statistics_of_the_reference() -> None:
    reference = color_reference(picture(1, low=-0.3, high=0.4))
    matched = color_reference(match_color(picture(2, frames=3), reference, 1.0))
    assert torch.allclose(matched.mean, reference.mean.expand_as(matched.mean), rtol=0.02, atol=0.3)
    assert torch.allclose(matched.std, reference.std.expand_as(matched.std), rtol=0.1, atol=0.3)


def test_every_frame_is_matched_on_its_own() -> None:
    video, reference = picture(3, frames=4), color_reference(picture(4))
    together = match_color(video, reference, 1.0)
    alone = [match_color(video[:, :, i : i + 1], reference, 1.0) for i in range(4)]
    assert torch.equal(together, torch.cat(alone, dim=2))


def test_strength_blends_between_source_and_match() -> None:
    video, reference = picture(5), color_reference(picture(6))
    full = match_color(video, reference, 1.0)
    assert torch.allclose(match_color(video, reference, 0.3), 0.7 * video + 0.3 * full, atol=1e-6)
    assert match_color(video, reference, 0.0) is video


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_a_frame_of_one_colour_gives_finite_numbers(value: float) -> None:
    flat = torch.full((1, 3, 2, 8, 8), value)
    result = match_color(flat, color_reference(picture(7)), 1.0)
    assert bool(result.isfinite().all())
    assert float(result.min()) >= -1 and float(result.max()) <= 1


def test_the_dtype_of_the_video_is_kept() -> None:
    video = picture(8).to(torch.bfloat16)
    result = match_color(video, color_reference(picture(9).to(torch.bfloat16)), 1.0)
    exact = match_color(video.float(), color_reference(picture(9).to(torch.bfloat16).float()), 1.0)
    assert result.dtype == torch.bfloat16
    assert float((result.float() - exact).norm() / exact.norm()) < 0.05


def test_motion_latents_encode_the_last_frames_only() -> None:
    seen: list[Tensor] = []

    def encode(frames: Tensor) -> Tensor:
        seen.append(frames)
        return frames[:, :, :2]

    video = picture(10, frames=9)
    assert motion_latents(encode, video, 5).shape[2] == 2
    assert torch.equal(seen[0], video[:, :, 4:])
