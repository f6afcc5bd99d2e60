"""The reference picture as the model is given it."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from ..media import cover_and_crop


def condition_image(picture: Image.Image, width: int, height: int, dtype: torch.dtype) -> Tensor:
    """Picture -> [1,3,1,H,W] in [-1,1], on the CPU; the scaling of values runs in `dtype`, as published."""
    pixels = torch.from_numpy(cover_and_crop(picture, width, height)).permute(2, 0, 1)
    return ((pixels.to(dtype) / 255 - 0.5) * 2).unsqueeze(0).unsqueeze(2)
