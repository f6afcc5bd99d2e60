"""How far a chunk looks from what it should look like: colours, sharpness, and the parts that stand still.

Drift is measured against an anchor, the appearance of the reference picture or of the first chunk. None of the three
measures looks at where the face is or what the mouth does, and all are small: a picture is first averaged down to about
64 pixels on its shorter side, except for sharpness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .color_match import rgb_to_lab

COLOR_STEP = 4.0
SHARPNESS_STEP = 0.5
SIMILARITY_STEP = 0.2
"""Size of each measure that counts as a drift of 1: Lab distance, octaves, lost similarity. Chosen so that a
viewer who compares the pictures side by side sees the difference."""

_LUMA = (0.299, 0.587, 0.114)
_FRAMES = 8
_SIDE = 64
_GRID = 4
_WINDOW = 8
_FLAT = (0.03 * 255) ** 2


@dataclass(frozen=True)
class Appearance:
    """What drift is measured against: a few numbers about a picture or a chunk, float32.

    Attributes:
        color: Mean of the Lab channels in every cell of a coarse grid, [3,rows,columns].
        contrast: Deviation of the Lab channels over the whole, [3].
        sharpness: Mean absolute Laplacian of the luma, in steps of 255, [1].
        luma: The average luma in small, in steps of 255, [h,w].
    """

    color: Tensor
    contrast: Tensor
    sharpness: Tensor
    luma: Tensor

    def to(self, device: torch.device | str) -> Appearance:
        """The same on another device."""
        return Appearance(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class Drift:
    """Distance of a chunk from the anchor.

    Attributes:
        color: Lab distance of the means, root mean square over the grid, and of the contrast.
        sharpness: Sharpness over that of the anchor.
        similarity: Structural similarity of the half of the picture that moves least: 1 is the same.
    """

    color: float
    sharpness: float
    similarity: float

    @property
    def score(self) -> float:
        """The largest of the three in units of its step: 1 is a difference that a viewer sees."""
        octaves = abs(math.log2(max(self.sharpness, 1e-6)))
        return max(self.color / COLOR_STEP, octaves / SHARPNESS_STEP, (1 - self.similarity) / SIMILARITY_STEP)


def appearance(video: Tensor) -> Appearance:
    """Appearance of a chunk or, with one frame, of a picture.

    Args:
        video: [1,3,F,H,W] in [-1,1].
    """
    return _measure(video)[0]


def measure_drift(video: Tensor, anchor: Appearance) -> Drift:
    """How far a chunk has drifted.

    Args:
        video: [1,3,F,H,W] in [-1,1], of the anchor's size.
        anchor: What it should look like, on the video's device.
    """
    now, motion = _measure(video)
    color = ((now.color - anchor.color).square().sum(0).mean() + (now.contrast - anchor.contrast).square().sum()).sqrt()
    ratio = now.sharpness[0] / anchor.sharpness[0].clamp_min(1e-6)
    similarity = _still_similarity(anchor.luma, now.luma, motion)
    # One transfer for three numbers: on a GPU each would wait for it.
    return Drift(*torch.stack([color, ratio, similarity]).tolist())


def sharpness(video: Tensor) -> Tensor:
    """Mean absolute Laplacian of the luma of a video [B,3,F,H,W] in [-1,1], in steps of 255; a scalar."""
    luma = _luma(video.float())
    inner = luma[..., 1:-1, 1:-1]
    around = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    return (around - 4.0 * inner).abs().mean()


def _measure(video: Tensor) -> tuple[Appearance, Tensor]:
    """Appearance from at most 8 frames spread over the video; how much each small pixel changes over them [h,w]."""
    count = video.shape[2]
    chosen = torch.linspace(0, count - 1, min(count, _FRAMES), device=video.device).round().long()
    frames = video.index_select(2, chosen).float()
    factor = max(1, min(frames.shape[-2:]) // _SIDE)
    small = F.avg_pool3d(frames, (1, factor, factor))
    lab, luma = rgb_to_lab((small + 1) / 2)[0], _luma(small)[0]
    seen = Appearance(
        color=F.adaptive_avg_pool2d(lab.mean(dim=1), _GRID),
        contrast=lab.std(dim=(-2, -1), unbiased=False).mean(dim=1),
        sharpness=sharpness(frames).reshape(1),
        luma=luma.mean(dim=0),
    )
    return seen, luma.std(dim=0, unbiased=False)


def _still_similarity(first: Tensor, second: Tensor, motion: Tensor) -> Tensor:
    """Contrast and structure part of SSIM of two planes [h,w], averaged over the windows that move least."""
    side = min(_WINDOW, *first.shape)

    def pool(plane: Tensor) -> Tensor:
        return F.avg_pool2d(plane[None, None], side, max(1, side // 2)).flatten()

    # Without the overall brightness, which the colours measure, the squares keep their digits.
    first, second = first - first.mean(), second - second.mean()
    both = pool(first * second) - pool(first) * pool(second)
    spread = pool(first**2) - pool(first) ** 2 + pool(second**2) - pool(second) ** 2
    similarity = (2 * both + _FLAT) / (spread + _FLAT)
    moving = pool(motion)
    return similarity[moving <= moving.median()].mean()


def _luma(video: Tensor) -> Tensor:
    """[B,3,F,H,W] in [-1,1] -> [B,F,H,W] in steps of 255."""
    red, green, blue = video.unbind(1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue + 1) * 127.5
