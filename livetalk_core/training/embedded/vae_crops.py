"""What the VAE is trained on: random crops of clips, with lips and eyes weighing more."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..avatars.avatar import eye_boxes, jaw_box
from .clips import SIZE, ClipStore


def region_weights(factor: float) -> Tensor:
    """Loss weight of every pixel [128,128]: `factor` on jaw and eyes, 1 elsewhere."""
    weights = torch.ones(SIZE, SIZE)
    for left, top, right, bottom in (jaw_box(SIZE), *eye_boxes(SIZE)):
        weights[top:bottom, left:right] = factor
    return weights


def random_crops(
    clips: ClipStore, weights: NDArray[np.float32], rng: np.random.Generator, batch: int, side: int, frames: int
) -> tuple[Tensor, Tensor]:
    """Random crops [B,3,F,side,side] in [-1,1] and their loss weights [B,1,1,side,side]; half of them on the face."""
    videos, maps = [], []
    for _ in range(batch):
        clip, first = rng.integers(len(clips)), rng.integers(clips.frames.shape[1] - frames + 1)
        room = SIZE - side
        top, left = (int(rng.integers(room + 1)) for _ in range(2))
        if rng.random() < 0.5:
            top = int(np.clip(rng.normal(72 - side / 2, 14), 0, room))
            left = int(np.clip(rng.normal(64 - side / 2, 10), 0, room))
        window = (slice(top, top + side), slice(left, left + side))
        video, region = clips.frames[clip, first : first + frames][:, window[0], window[1]], weights[window]
        if rng.random() < 0.5:
            video, region = video[:, :, ::-1], region[:, ::-1]
        videos.append(video)
        maps.append(region)
    video_tensor = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)
    return video_tensor, torch.from_numpy(np.stack(maps).copy())[:, None, None]
