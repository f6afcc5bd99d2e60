"""Run a stream for a node: the video is made on a thread of its own, everything is told on the caller's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from livetalk_core.chunking import chunk_count
from livetalk_core.production import ChunkRecord, Job, Observer, Report, Stopped, make_backend, produce

from .keeper import KEEPER, Keeper
from .recipes import StreamRecipe
from .requests import video_request

POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 0.4
_QUEUED_EVENTS = 4
_PHASES = {
    "checking": "Checking the inputs",
    "starting": "Starting the processes of the model",
    "loading": "Loading the model",
    "preparing": "Preparing picture and prompt",
    "generating": "Making the first chunk",
    "recovering": "A process died and is being replaced",
    "finishing": "Finishing the file",
}


@dataclass(frozen=True)
class VideoShape:
    """What is going to be made."""

    width: int
    height: int
    fps: int
    sample_rate: int
    chunks: int


class View(Protocol):
    """Who watches a run; every method is called on the thread that called `run_stream`."""

    def poll(self) -> None:
        """Called at least every 50 ms; raises to end the run."""

    def phase(self, text: str) -> None:
        """What goes on now, for people."""

    def opened(self, shape: VideoShape) -> None:
        """Sizes and rates are settled; chunks follow."""

    def progress(self, done: float, total: float) -> None:
        """Chunks made, parts of one included, of all chunks."""

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """A chunk has been made: uint8 [F,H,W,3] and its sound [S]."""


Event = Callable[[View], None]


def run_stream(stream: StreamRecipe, output: Path, view: View, keeper: Keeper = KEEPER) -> Report:
    """Make the video of a stream.

    When a method of `view` raises, the thread is told to stop and given a moment; a step that cannot be
    interrupted ends by itself later, and the next run waits for it.

    Args:
        stream: What to make.
        output: The .mp4 to write; nothing is left of it after an error or a stop.
        view: Is told how it goes on.
        keeper: Where the model is kept between runs.

    Raises:
        LiveTalkError: of the kind that says what is wrong.
        BaseException: what `view` raised.
    """
    run = _Run(stream, output, keeper)
    run.start()
    try:
        while run.handle_event(view):
            view.poll()
    except BaseException:
        run.stop.set()
        run.join(_PATIENCE_SECONDS)
        raise
    run.join()
    if run.error is not None:
        raise run.error
    assert run.report is not None
    return run.report


class _Run(threading.Thread):
    """The thread that makes the video."""

    def __init__(self, stream: StreamRecipe, output: Path, keeper: Keeper) -> None:
        super().__init__(name="livetalk-run", daemon=True)
        self.stop = threading.Event()
        self.report: Report | None = None
        self.error: BaseException | None = None
        self._stream, self._output, self._keeper = stream, output, keeper
        self._events: queue.Queue[Event | None] = queue.Queue(_QUEUED_EVENTS)

    def handle_event(self, view: View) -> bool:
        """Hand the next event to the view, waiting at most 50 ms for one; False after the last."""
        with suppress(queue.Empty):
            event = self._events.get(timeout=POLL_SECONDS)
            if event is None:
                return False
            event(view)
        return True

    def run(self) -> None:
        try:
            self.report = self._produce()
        except BaseException as error:
            self.error = error
        finally:
            self.tell(None)

    def tell(self, event: Event | None) -> None:
        """Queue an event; waits while the view is busy, unless the run was stopped."""
        while not self.stop.is_set():
            with suppress(queue.Full):
                self._events.put(event, timeout=POLL_SECONDS)
                return

    def _produce(self) -> Report:
        request = video_request(self._stream, self._output, self.stop.is_set)
        with self._keeper.using(self._stream.model, lambda: make_backend(request), self._wait) as backend:
            report = produce(request, _Teller(self.tell), backend)
        if report.status != "complete":
            self._output.unlink(missing_ok=True)
            raise Stopped
        return report

    def _wait(self) -> None:
        if self.stop.is_set():
            raise Stopped
        self.tell(lambda view: view.phase("Waiting until the run before has stopped"))


class _Teller(Observer):
    """Passes on what a production tells."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._chunks = 0

    def phase(self, name: str) -> None:
        text = _PHASES.get(name, name)
        self._tell(lambda view: view.phase(text))

    def checked(self, job: Job) -> None:
        config, geometry = job.config, job.config.geometry
        frames = max(1, round((job.seconds or 0) * geometry.fps))
        self._chunks = chunk_count(frames, geometry, config.audio.mode)
        shape = VideoShape(config.width, config.height, geometry.fps, geometry.sample_rate, self._chunks)
        self._tell(lambda view: view.opened(shape))

    def step(self, chunk: int, step: int, steps: int) -> None:
        # Decoding takes about as long as one step.
        done = chunk + step / (steps + 1)
        self._tell(lambda view: view.progress(done, self._chunks))

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        kept = frames.copy()
        self._tell(lambda view: view.chunk(record, kept, samples))
