"""Motion latents: the end of one chunk, as the next chunk is given it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def motion_latents(encode: Callable[[Tensor], Tensor], frames: Tensor, motion_frames: int) -> Tensor:
    """Latents [B,16,m,h,w] of the last `motion_frames` of frames [B,3,F,H,W] in [-1,1].

    They are encoded afresh: the causal encoder codes the first of them as a picture.
    Gradients are not stopped here; a rollout that wants none disables them around the call.
    """
    return encode(frames[:, :, -motion_frames:])
