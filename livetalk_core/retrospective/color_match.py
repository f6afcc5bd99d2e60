"""Colour match of generated frames to the reference, so that colours do not wander from chunk to chunk.

Reinhard's transfer: every frame's mean and deviation per CIE Lab channel are moved to those of the reference.
All arithmetic runs in the dtype of the video, with the published constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_FROM_XYZ = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_WHITE = (0.95047, 1.0, 1.08883)
_EPSILON, _KAPPA = 0.008856, 903.3


@dataclass(frozen=True)
class ColorReference:
    """Mean and deviation of the reference's Lab channels, each [B,3,1,1,1]."""

    mean: Tensor
    std: Tensor


def color_reference(picture: Tensor) -> ColorReference:
    """Statistics of a picture [B,3,1,H,W] in [-1,1]; constant for a stream."""
    return ColorReference(*_moments(rgb_to_lab((picture + 1) / 2)))


def match_color(video: Tensor, reference: ColorReference, strength: float) -> Tensor:
    """Video [B,3,F,H,W] in [-1,1] with each frame's colours moved towards the reference.

    Args:
        video: Frames; the result has their dtype.
        reference: Result of `color_reference`.
        strength: Share of the corrected colour in the result; 0 returns the video itself.
    """
    if strength == 0:
        return video
    source = (video + 1) / 2
    lab = rgb_to_lab(source)
    mean, std = _moments(lab)
    std = torch.where(std < 1e-8, torch.ones_like(std), std)
    corrected = _lab_to_rgb((lab - mean) * (reference.std / std) + reference.mean)
    blended = corrected if strength == 1 else (1 - strength) * source + strength * corrected
    return blended * 2 - 1


def _moments(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Per frame and channel mean and population deviation over the pixels."""
    return lab.mean(dim=(-2, -1), keepdim=True), lab.std(dim=(-2, -1), keepdim=True, unbiased=False)


def _mix(channels: Tensor, matrix: tuple[tuple[float, float, float], ...]) -> list[Tensor]:
    first, second, third = channels.unbind(1)
    return [first * row[0] + second * row[1] + third * row[2] for row in matrix]


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0,1] -> Lab, channels in dimension 1."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.stack([c / white for c, white in zip(_mix(linear, _TO_XYZ), _WHITE, strict=True)], dim=1)
    xyz = xyz.clamp_(1e-8, 1.0)
    x, y, z = torch.where(xyz > _EPSILON, xyz ** (1 / 3), (_KAPPA * xyz + 16) / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab -> sRGB clamped to [0,1], channels in dimension 1."""
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    fx, fz = a / 500 + fy, fy - b / 200
    x, z = (_cube(f) for f in (fx, fz))
    y = torch.where(lightness > _KAPPA * _EPSILON, fy**3, lightness / _KAPPA)
    xyz = torch.stack([c * white for c, white in zip((x, y, z), _WHITE, strict=True)], dim=1)
    linear = torch.stack(_mix(xyz, _FROM_XYZ), dim=1)
    # The power of a negative number is NaN; the straight branch is taken there.
    curved = 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp_(0.0, 1.0)


def _cube(f: Tensor) -> Tensor:
    cubed = f**3
    return torch.where(cubed > _EPSILON, cubed, (116 * f - 16) / _KAPPA)
