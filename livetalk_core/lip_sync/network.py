"""A small convolutional regressor that reads one number 0..1 from one region of a face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FACE_SIDE = 128
"""Frames are brought to this square size before a region is cut out."""

_CHANNELS = (16, 24, 32, 40)
_STRIDES = (2, 2, 1, 2)
_NARROW = 6
_HIDDEN = 24


@dataclass(frozen=True)
class RegionSpec:
    """Where on the 128x128 face to look: name of the weights and box (left, top, right, bottom)."""

    name: str
    box: tuple[int, int, int, int]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.box[3] - self.box[1]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.box[2] - self.box[0]

    def cut(self, faces: Tensor, margin: int = 0) -> Tensor:
        """Region of faces [N,C,128,128], with `margin` more pixels on each side."""
        left, top, right, bottom = self.box
        return faces[..., top - margin : bottom + margin, left - margin : right + margin]


MOUTH = RegionSpec("mouth", (32, 58, 96, 122))
"""Lips, chin and jaw of every drawn identity in every pose."""

EYES = RegionSpec("eyes", (24, 32, 104, 72))
"""Both eyes and brows of every drawn identity in every pose."""


class RegionRegressor(nn.Module):
    """Region [N,3,h,w] in 0..1 -> value [N], about 0..1 (not clamped); 32 thousand parameters."""

    def __init__(self, spec: RegionSpec) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, stride in zip(_CHANNELS, _STRIDES, strict=True):
            layers += [
                nn.Conv2d(before, channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.SiLU(),
            ]
            before = channels
        self.features = nn.Sequential(*layers, nn.Conv2d(before, _NARROW, 1), nn.SiLU())
        cells = (spec.height // 8) * (spec.width // 8)
        self.head = nn.Sequential(nn.Linear(_NARROW * cells, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, region: Tensor) -> Tensor:
        """See the class."""
        # Channel means move with lighting and with a model's colour cast; the shape of the mouth does not.
        centred = (region - region.mean(dim=(-2, -1), keepdim=True)) * 4.0
        value: Tensor = self.head(torch.flatten(self.features(centred), 1))
        return value[:, 0]
