"""Sample videos during a run: the same clip spoken again and again, by the network as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.step import to_frames
from ...media import VideoWriter, make_folder
from ...retrospective import color_reference, match_color
from ..data.batches import Batch, join_clips
from ..data.prepared import PreparedSet
from ..trainer.draws import Draws
from ..trainer.ranks import Ranks
from .rollout import Rollout

_SAMPLE_SEED = 2**32
_LONGEST = 5


class SampleVideos:
    """Rolls the first clip of a prepared set out and writes it with its sound.

    Args:
        network: Who speaks.
        rollout: How.
        data: Whose first clip.
        out: Folder of the videos.
        ranks: Of the run; all take part, the first writes.
    """

    def __init__(self, network: nn.Module, rollout: Rollout, data: PreparedSet, out: Path, ranks: Ranks) -> None:
        self.network, self.rollout, self.data, self.out, self.ranks = network, rollout, data, out, ranks

    def __call__(self, iteration: int) -> None:
        """Write `iteration`.mp4.

        Raises:
            OutputError: the video cannot be written.
        """
        entry = self.data.index.clips[0]
        chunks = min(entry.chunks, _LONGEST)
        draws = Draws(_SAMPLE_SEED, 0, range(1))
        batch = join_clips(self.data, draws, [self.data.read(0, 0, chunks, 0)], [entry.prompt], self.ranks.device)
        video = rolled_video(self.network, self.rollout, batch, chunks)
        if self.ranks.first:
            make_folder(self.out)
            self._write(self.out / f"{iteration:07d}.mp4", video, entry.chunks)

    def _write(self, path: Path, video: Tensor, clip_chunks: int) -> None:
        geometry = self.data.geometry
        frames = to_frames(video)
        # The sound of a clip's new frames is the end of its samples.
        sound = self.data.samples(0).numpy()[-clip_chunks * geometry.slice_samples :]
        with VideoWriter(path, frames.shape[2], frames.shape[1], geometry.fps, geometry.sample_rate) as writer:
            writer.write(frames, np.ascontiguousarray(sound[: len(frames) * geometry.samples_per_frame]))


@torch.no_grad()
def rolled_video(network: nn.Module, rollout: Rollout, batch: Batch, chunks: int) -> Tensor:
    """New frames [1,3,F,H,W] of so many chunks of a batch of one clip, colour matched."""
    motion = rollout.first_motion(batch)
    parts = []
    for chunk in range(chunks):
        video = rollout.vae.decode(rollout.sample_chunk(network, batch, chunk, motion))
        motion = rollout.following_motion(batch, video)
        new, reference = video[:, :, rollout.geometry.motion_frames :], color_reference(batch.pictures.to(video))
        parts.append(match_color(new, reference, rollout.config.color_strength))
    return torch.cat(parts, dim=2).float()
