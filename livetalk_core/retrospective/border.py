"""Hide the border between chunks: each is decoded afresh, so its first new frame is not quite where the last one was.

The decoder shows the motion frames a second time at the start of a chunk. What their last one lacks of the frame that
was shown is added to the new frames, less and less. The published code has nothing like it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def fade_border(video: Tensor, again: Tensor, shown: Tensor, frames: int) -> Tensor:
    """Video [B,3,F,H,W] whose first `frames` frames lead over from what was shown before.

    Args:
        video: New frames of a chunk.
        again: The frame before them as this chunk decodes it [B,3,1,H,W].
        shown: The same frame as it was shown.
        frames: How many frames it takes until nothing is added, at most F; 0 returns the video itself.
    """
    count = min(frames, video.shape[2])
    if count == 0:
        return video
    shares = [0.5 + 0.5 * math.cos(math.pi * (step + 1) / (count + 1)) for step in range(count)]
    weights = torch.tensor(shares, dtype=video.dtype, device=video.device).view(1, 1, -1, 1, 1)
    return torch.cat([video[:, :, :count] + weights * (shown - again), video[:, :, count:]], dim=2)
