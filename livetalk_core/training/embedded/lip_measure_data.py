"""Training pictures of the mouth and eye measures: true renders, and what a video model does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...lip_sync.network import FACE_SIDE, RegionSpec
from ..avatars.avatar import Identity, draw
from ..avatars.motion import POSE_LIMIT

MARGIN: Final = 4
"""Pixels kept around a region, so that blur sees its surroundings and the cut can move."""

_FRAMES_PER_IDENTITY = 4
_BLUR_RADIUS = 4


@dataclass(frozen=True)
class FaceSet:
    """Faces uint8 [N,3,128,128] with the mouth opening [N] and the eye closure [N] they were drawn with."""

    faces: Tensor
    opening: Tensor
    closure: Tensor

    def __len__(self) -> int:
        return len(self.faces)


def render_faces(identities: int, first_seed: int, seed: int) -> FaceSet:
    """Draw four faces each of the identities first_seed, first_seed + 1, ..., in random shapes and poses.

    Raises:
        MissingDependencyError: skia-python is not installed.
    """
    count = identities * _FRAMES_PER_IDENTITY
    faces = torch.empty((count, 3, FACE_SIDE, FACE_SIDE), dtype=torch.uint8)
    opening, closure = torch.empty(count), torch.empty(count)
    for number in range(identities):
        rng = np.random.default_rng([seed, number])
        identity = Identity.from_seed(first_seed + number)
        for row in range(number * _FRAMES_PER_IDENTITY, (number + 1) * _FRAMES_PER_IDENTITY):
            mouth, blink = random_mouth(rng), _random_closure(rng)
            pose = rng.uniform(-1.0, 1.0, 3) * POSE_LIMIT
            brow, gaze = float(rng.uniform(-0.2, 0.8)), rng.uniform(-0.4, 0.4, 2)
            picture = draw(identity, mouth, pose, blink, brow, gaze, FACE_SIDE)
            faces[row] = torch.from_numpy(picture).permute(2, 0, 1)
            opening[row], closure[row] = float(mouth[0]), blink
    return FaceSet(faces, opening, closure)


def random_mouth(rng: np.random.Generator) -> NDArray[np.float64]:
    """Mouth parameters [4]: closed in a fifth, little open in a third, anything in the rest."""
    kind = rng.random()
    top = 0.0 if kind < 0.12 else 0.08 if kind < 0.2 else 0.35 if kind < 0.5 else 1.0
    return np.array([rng.uniform(0.0, top), rng.uniform(-1.0, 1.0), rng.random(), rng.random()])


def _random_closure(rng: np.random.Generator) -> float:
    kind = rng.random()
    return 0.0 if kind < 0.45 else 1.0 if kind < 0.6 else float(rng.random())


def degraded_regions(faces: Tensor, spec: RegionSpec, generator: torch.Generator) -> Tensor:
    """Cut a region from faces uint8 [N,3,128,128] and spoil most of them in the ways a video model does.

    All are shifted by up to 2 pixels. A fifth stays clean else; the others are, each with its own chance, softened by a
    coarser grid, blurred, tinted, and covered with blotches and grain.

    Returns:
        float32 [N,3,h,w] in 0..1.
    """
    regions = spec.cut(faces, MARGIN).float() / 255
    spoilt = _tint(_blur(_soften(regions, generator), generator), generator)
    spoilt = (spoilt + _grain(spoilt, generator)).clamp(0.0, 1.0)
    clean = _chance(len(faces), 0.2, generator)
    regions = torch.where(clean, regions, spoilt)
    top, left = (int(torch.randint(MARGIN - 2, MARGIN + 3, (), generator=generator)) for _ in range(2))
    return regions[..., top : top + spec.height, left : left + spec.width]


def _chance(count: int, share: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < share)[:, None, None, None]


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _soften(regions: Tensor, generator: torch.Generator) -> Tensor:
    """Lose the detail that a grid of .4 to .8 of the resolution cannot hold, as a VAE's latents do."""
    height, width = regions.shape[-2:]
    scale = float(_uniform((), 0.4, 0.8, generator))
    size = (round(height * scale), round(width * scale))
    small = functional.interpolate(regions, size, mode="bilinear", align_corners=False, antialias=True)
    soft = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return torch.where(_chance(len(regions), 0.35, generator), soft, regions)


def _blur(regions: Tensor, generator: torch.Generator) -> Tensor:
    """Blur each picture with a Gaussian of its own, sigma 0.05 to 1.4 pixels."""
    count, channels = regions.shape[:2]
    sigma = _uniform((count, 1), 0.05, 1.4, generator)
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    image = functional.pad(regions, [_BLUR_RADIUS] * 4, mode="replicate").flatten(0, 1)[None]
    image = functional.conv2d(image, kernel[..., None], groups=count * channels)
    image = functional.conv2d(image, kernel[:, :, None], groups=count * channels)
    return torch.where(_chance(count, 0.6, generator), image.reshape(regions.shape), regions)


def _tint(regions: Tensor, generator: torch.Generator) -> Tensor:
    """Change contrast per channel, brightness per channel and gamma."""
    count = len(regions)
    gain = 1.0 + 0.05 * torch.randn((count, 3, 1, 1), generator=generator)
    shift = 0.03 * torch.randn((count, 3, 1, 1), generator=generator)
    gamma = torch.exp(0.12 * torch.randn((count, 1, 1, 1), generator=generator))
    return regions.clamp(1e-3, 1.0) ** gamma * gain + shift


def _grain(regions: Tensor, generator: torch.Generator) -> Tensor:
    """Fine noise and coarse blotches, both up to 3 % strong."""
    count, channels, height, width = regions.shape
    fine = torch.randn(regions.shape, generator=generator)
    coarse = torch.randn((count, channels, height // 8, width // 8), generator=generator)
    blotches = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    levels = _uniform((2, count, 1, 1, 1), 0.0, 0.03, generator)
    return levels[0] * fine + levels[1] * blotches
