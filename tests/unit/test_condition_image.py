"""The reference picture: scaled, cropped and brought to [-1, 1] as published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from livetalk_core.engine.condition_image import condition_image
from livetalk_core.errors import ImageError
from livetalk_core.media import cover_and_crop

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [(64, 64), (100, 80), (33, 999), (1, 1), (641, 480), (2000, 30)])
@pytest.mark.parametrize("target", [(96, 64), (64, 96), (16, 16)])
def test_any_picture_covers_the_target(size: tuple[int, int], target: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (10, 20, 30))
    pixels = cover_and_crop(picture, *target)
    assert pixels.shape == (target[1], target[0], 3)
    assert (pixels == (10, 20, 30)).all()


def test_the_centre_is_kept() -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = 255
    assert (cover_and_crop(Image.fromarray(wide), 64, 64) == 255).all()


def test_values_run_from_minus_one_to_one_in_the_model_dtype() -> None:
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2))
    exact = condition_image(picture, 16, 16, torch.float32)
    assert exact.shape == (1, 3, 1, 16, 16)
    assert float(exact.min()) == -1.0 and float(exact.max()) == 1.0
    half = condition_image(picture, 16, 16, torch.bfloat16)
    pixels = torch.arange(256).reshape(16, 16).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half[0, 0, 0], (pixels / 255 - 0.5) * 2)


def test_a_stripe_is_refused() -> None:
    with pytest.raises(ImageError, match="1000x2"):
        cover_and_crop(Image.new("RGB", (1000, 2)), 64, 64)
