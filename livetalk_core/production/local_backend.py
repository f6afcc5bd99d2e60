"""The model in this process."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING

from ..config import Offload
from ..engine import Engine, Stream, drive
from ..engine.compilation import compile_model
from ..engine.drive import open_for
from ..loading import load_model
from ..models.bundle import ModelBundle
from .backend import Watch
from .facts import Made, ModelFacts

if TYPE_CHECKING:
    from .prepare import Job
    from .sound_track import SoundTrack


class LocalBackend:
    """See `Backend`.

    Args:
        model, device, dtype, offload: See `load_model`.
        compiled: Compile the transformer's blocks.
    """

    def __init__(
        self, model: str | None, device: str, dtype: str, *, offload: Offload = "auto", compiled: bool = False
    ) -> None:
        self._model, self._device, self._dtype = model, device, dtype
        self._offload, self._compiled = offload, compiled
        self._bundle: ModelBundle | None = None

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """See `Backend`."""
        return (os.getpid(),)

    def load(self, watch: Watch) -> ModelFacts:
        """See `Backend`."""
        watch.check()
        if self._bundle is None:
            watch.observer.phase("loading")
            self._bundle = load_model(
                self._model, self._device, self._dtype, offload=self._offload, poll=watch.check
            )
            if self._compiled:
                compile_model(self._bundle)
        watch.check()
        bundle = self._bundle
        dtype = str(bundle.dtype).removeprefix("torch.")
        return ModelFacts(bundle.name, bundle.revision, str(bundle.device), dtype, 1, self.worker_pids)

    def open(self, job: Job, sound: SoundTrack, watch: Watch) -> Generator[Made, None, None]:
        """See `Backend`."""
        assert self._bundle is not None
        request = job.request
        stream = open_for(
            Engine(self._bundle), job.config, job.picture, sound, state=job.saved,
            context=request.context, clip_features=request.clip_features,
        )  # fmt: skip
        return _chunks(stream, job, sound, watch)

    def close(self) -> None:
        """See `Backend`."""
        self._bundle = None


def _chunks(stream: Stream, job: Job, sound: SoundTrack, watch: Watch) -> Generator[Made, None, None]:
    def progress(phase: str, step: int, steps: int) -> None:
        watch.check()
        if phase in ("step", "decode") and step:
            watch.observer.step(stream.state.chunk, step, steps)

    for chunk in drive(stream, sound, progress=progress):
        state = b"" if job.request.state is None else stream.state.to_bytes()
        yield Made(chunk.index, chunk.first_frame, chunk.frames, chunk.timings, chunk.stats, state)
        watch.check()
