"""The reference picture as the model is given it, and the video size that suits a picture."""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from ..config import MAX_SIDE
from ..media import cover_and_crop


def condition_image(picture: Image.Image, width: int, height: int, dtype: torch.dtype) -> Tensor:
    """Picture -> [1,3,1,H,W] in [-1,1], on the CPU; the scaling of values runs in `dtype`, as published."""
    pixels = torch.from_numpy(cover_and_crop(picture, width, height)).permute(2, 0, 1)
    return ((pixels.to(dtype) / 255 - 0.5) * 2).unsqueeze(0).unsqueeze(2)


def size_for_picture(
    picture_size: tuple[int, int], default_size: tuple[int, int], multiple: int
) -> tuple[int, int]:
    """Width and height with the shape of the picture and about as many pixels as the model's default.

    Args:
        picture_size: Width and height of the picture.
        default_size: Width and height the model was trained for.
        multiple: Both results are multiples of this.
    """
    area = default_size[0] * default_size[1]
    ratio = picture_size[0] / picture_size[1]

    def fit(side: float) -> int:
        return min(max(multiple, round(side / multiple) * multiple), MAX_SIDE // multiple * multiple)

    return fit(math.sqrt(area * ratio)), fit(math.sqrt(area / ratio))
