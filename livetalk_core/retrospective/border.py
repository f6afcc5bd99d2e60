"""Hide the border between chunks: each is decoded afresh, so its first new frame is not quite where the last one was.

The decoder shows the motion frames a second time at the start of a chunk. What their last one lacks of the frame that
was shown is added to the new frames, less and less. The first new frame is also the first that was generated and not
given, and moves further than its neighbours; a part of that is taken back. The published code has nothing like it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAD_FRAMES = 2
"""Frames before the new ones that `fade_border` looks at."""
_CALMED = 0.15
"""Share of what the first new frame moves more than its neighbours that is taken back. All of it would make borders
calmer than the rest, and lips late."""


def fade_border(video: Tensor, again: Tensor, shown: Tensor, frames: int) -> Tensor:
    """Video [B,3,F,H,W] whose first `frames` frames lead over from what was shown before.

    Args:
        video: New frames of a chunk.
        again: The two frames before them as this chunk decodes them [B,3,2,H,W].
        shown: The second of these as it was shown [B,3,1,H,W].
        frames: How many frames it takes until nothing is added, at most F; 0 returns the video itself.
    """
    count = min(frames, video.shape[2])
    if count == 0:
        return video
    earlier, last = again[:, :, :1], again[:, :, 1:]
    lacking = _falling(video, 1, count) * (shown - last)
    if video.shape[2] > 1:
        first, second = video[:, :, :1], video[:, :, 1:2]
        excess = (first - last) - 0.5 * ((last - earlier) + (second - first))
        lacking = lacking - _CALMED * _falling(video, 0, count) * excess
    return torch.cat([video[:, :, :count] + lacking, video[:, :, count:]], dim=2)


def _falling(video: Tensor, start: int, count: int) -> Tensor:
    """Half a cosine from 1 to 0 over count + 1 frames, read from frame `start` on: [1,1,count,1,1]."""
    shares = [0.5 + 0.5 * math.cos(math.pi * (start + step) / (count + 1)) for step in range(count)]
    return torch.tensor(shares, dtype=video.dtype, device=video.device).view(1, 1, -1, 1, 1)
