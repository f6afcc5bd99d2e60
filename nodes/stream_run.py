"""Make the video of a stream, as the command line does, and tell a view about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livetalk_core.chunking import chunk_count
from livetalk_core.production import ChunkRecord, Job, Observer, Report, Stopped, make_backend, produce

from .keeper import KEEPER, Keeper
from .recipes import StreamRecipe
from .requests import video_request
from .runner import Reins, VideoShape, View, run


def run_stream(stream: StreamRecipe, output: Path, view: View, keeper: Keeper = KEEPER) -> Report:
    """Make the video of a stream; see `runner.run`.

    Args:
        stream: What to make.
        output: The .mp4 to write.
        view: Is told how it goes on.
        keeper: Where the model is kept between runs.
    """

    def work(reins: Reins) -> Report:
        request = video_request(stream, output, reins.stop.is_set)
        with keeper.using(stream.model, lambda: make_backend(request), reins.wait) as backend:
            report = produce(request, _Teller(reins), backend)
        if report.status != "complete":
            raise Stopped
        return report

    return run(work, output, view)


class _Teller(Observer):
    """Passes on what a production tells."""

    def __init__(self, reins: Reins) -> None:
        self._reins = reins
        self._chunks = 0

    def phase(self, name: str) -> None:
        self._reins.tell(lambda view: view.phase(name))

    def checked(self, job: Job) -> None:
        config, geometry = job.config, job.config.geometry
        frames = max(1, round((job.seconds or 0) * geometry.fps))
        self._chunks = chunk_count(frames, geometry, config.audio.mode)
        shape = VideoShape(config.width, config.height, geometry.fps, geometry.sample_rate, self._chunks)
        self._reins.tell(lambda view: view.opened(shape))

    def step(self, chunk: int, step: int, steps: int) -> None:
        # Decoding takes about as long as one step.
        done = chunk + step / (steps + 1)
        self._reins.tell(lambda view: view.progress(done, self._chunks))

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        kept = frames.copy()
        self._reins.tell(lambda view: view.chunk(record, kept, samples))
