"""Whether a video's background stands still: structural similarity of its outer border over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frames = NDArray[np.uint8]

STILL = 0.96
"""Least similarity of a still background, as the public reproduction filters its data."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float64)
_WIDTH = 256
_BLOCK = 8
_STRIP = 0.125
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def background_similarity(frames: Frames | Sequence[Frames]) -> float:
    """Least structural similarity (SSIM) to the first frame, over the top and side strips of the frames [F,H,W,3].

    The strips are an eighth of the frame wide; the person is expected between and below them. 1 = nothing moves.
    """
    lumas = [_border(_luma(frame)) for frame in frames]
    return min((similarity(lumas[0], luma) for luma in lumas[1:]), default=1.0)


def similarity(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean SSIM of blocks [n, pixels] that lie at the same places."""
    mean1, mean2 = first.mean(axis=1), second.mean(axis=1)
    variance1, variance2 = first.var(axis=1), second.var(axis=1)
    covariance = ((first - mean1[:, None]) * (second - mean2[:, None])).mean(axis=1)
    top = (2 * mean1 * mean2 + _C1) * (2 * covariance + _C2)
    bottom = (mean1**2 + mean2**2 + _C1) * (variance1 + variance2 + _C2)
    return float((top / bottom).mean())


def _luma(frame: Frames) -> NDArray[np.float64]:
    height = max(2 * _BLOCK, round(frame.shape[0] * _WIDTH / frame.shape[1]))
    small = Image.fromarray(np.ascontiguousarray(frame)).resize((_WIDTH, height), Image.Resampling.BOX)
    luma: NDArray[np.float64] = np.asarray(small, np.float64) @ _LUMA
    return luma


def _border(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 8x8 blocks of the border strips, [n, 64]."""
    rows, columns = luma.shape[0] // _BLOCK, luma.shape[1] // _BLOCK
    blocks = luma[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2)
    top, side = max(1, round(rows * _STRIP)), max(1, round(columns * _STRIP))
    inside = np.zeros((rows, columns), np.bool_)
    inside[top:, side : columns - side] = True
    outer: NDArray[np.float64] = blocks[~inside].reshape(-1, _BLOCK * _BLOCK)
    return outer
