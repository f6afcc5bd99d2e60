"""The reference picture as the model is given it, and the video size that suits a picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..config import MAX_SIDE
from ..errors import ImageError


def cover_and_crop(picture: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Pixels [H,W,3] of a picture scaled until it covers width x height, then cropped around its centre.

    Bilinear with the rounding of the published code (spec: session setup).

    Raises:
        ImageError: one side of the picture is more than 100 times the other; nothing of it would be left.
    """
    w0, h0 = picture.size
    if max(w0, h0) > 100 * min(w0, h0):
        raise ImageError(f"The picture is {w0}x{h0}.", "Use one whose sides are less unequal.", size=[w0, h0])
    scale = max(height / h0, width / w0)
    # Rounding of the quotient can leave a side one pixel short of the target.
    w1, h1 = max(width, math.ceil(scale * w0)), max(height, math.ceil(scale * h0))
    resized = np.asarray(picture.convert("RGB").resize((w1, h1), Image.Resampling.BILINEAR))
    top, left = round((h1 - height) / 2.0), round((w1 - width) / 2.0)
    return np.array(resized[top : top + height, left : left + width])


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
