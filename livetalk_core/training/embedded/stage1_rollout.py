"""What the student of stage 1 makes itself: a first chunk, and the motion latents of the next one."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import ChunkGeometry, SamplerConfig
from ...models.vae import WanVideoVAE
from ...retrospective import motion_latents
from ...sampling import motion_buffer, sample, timesteps
from .stage1_batch import BatchMaker
from .stage1_model import Student


@torch.no_grad()
def first_chunk_motion(student: Student, vae: WanVideoVAE, make: BatchMaker) -> tuple[int, Tensor]:
    """Sample the first chunk of one random clip, decode it, encode its last frames again.

    Returns:
        The number of the clip, and the motion latents [16,2,h,w] of its second chunk.
    """
    clip = torch.randint(len(make.cache), (1,), generator=make.random)
    y, pictures = make.conditioning(clip)
    first = make.normalised(make.cache.chunks[clip, 0])[:, :, :1]
    buffer, mask = motion_buffer(first, y.shape[2])
    with torch.autocast("cpu", torch.bfloat16):
        stream, audio = student.condition(pictures, make.windows(clip, torch.zeros_like(clip)))

        def velocity(latents: Tensor, level: Tensor) -> Tensor:
            result: Tensor = student.transformer(latents, y, level, stream, audio)
            return result

        noise = make.normal(1, *y.shape[1:])[:, 4:]
        latents = sample(
            velocity, noise, timesteps(SamplerConfig()), buffer, mask, lambda _: make.normal(*noise.shape)
        )
    video = vae.decode(latents)
    return int(clip), motion_latents(vae.encode, video, ChunkGeometry().motion_frames)[0].float()
