"""A rank that computes nothing: it hands over frames of a given size, and says when it began."""

from __future__ import annotations

import sys
import time

import numpy as np

from livetalk_core.config import StreamConfig, decode_config
from livetalk_core.daemon.messages import ModelInfo
from livetalk_core.daemon.rank_interface import Result, RunContext, Standing
from livetalk_core.daemon.worker_link import WorkerLink
from livetalk_core.daemon.worker_loop import WorkerLoop, read_worker_config
from livetalk_core.daemon.worker_messages import Encode, Open, OpenDecode, Restore


class HandoverEngine:
    """See `RankEngine`."""

    def load(self) -> ModelInfo:
        return ModelInfo("handover")

    def open(self, command: Open) -> Standing:
        config = decode_config(StreamConfig, command.config, "settings")
        shape = (config.geometry.slice_frames, config.height, config.width, 3)
        self._frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return Standing()

    def run(self, context: RunContext) -> Result:
        began = time.monotonic()
        context.begin_frames(self._frames.shape)[...] = self._frames
        context.finish_frames(self._frames.shape, context.command.chunk * len(self._frames))
        return Result(timings={"began": began, "written": time.monotonic()})

    def restore(self, command: Restore) -> Standing:
        return Standing()

    def encode(self, command: Encode) -> int:
        raise NotImplementedError

    def open_decode(self, command: OpenDecode, latents: int) -> None:
        raise NotImplementedError

    def close(self, stream: int) -> None:
        pass

    def forget_clip(self, clip: int) -> None:
        pass


if __name__ == "__main__":
    WorkerLoop(WorkerLink(read_worker_config()), HandoverEngine()).serve()
    sys.exit(0)
