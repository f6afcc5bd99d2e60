"""Long work for a node: done on a thread of its own, while everything is told and Stop is asked for on the caller's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from livetalk_core.errors import OutputError
from livetalk_core.production import ChunkRecord, Stopped

from .limits import TEMPORARY_FOLDER_HINT

POLL_SECONDS = 0.05
_PATIENCE_SECONDS = 0.4
_QUEUED_EVENTS = 4

T = TypeVar("T")


@dataclass(frozen=True)
class VideoShape:
    """What is going to be made."""

    width: int
    height: int
    fps: int
    sample_rate: int
    chunks: int


class View(Protocol):
    """Who watches; every method is called on the thread that called `run`."""

    def poll(self) -> None:
        """Called at least every 50 ms; raises to end the run."""

    def phase(self, name: str) -> None:
        """What goes on now, a name of `phases.PHASES`."""

    def opened(self, shape: VideoShape) -> None:
        """Sizes and rates are settled; chunks follow."""

    def progress(self, done: float, total: float) -> None:
        """Chunks made, parts of one included, of all chunks."""

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """A chunk has been made: uint8 [F,H,W,3] and its sound [S]."""


Event = Callable[[View], None]


class Reins:
    """What the working thread holds: how to tell the view, and whether to stop."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.events: queue.Queue[Event | None] = queue.Queue(_QUEUED_EVENTS)

    def tell(self, event: Event | None) -> None:
        """Queue an event; waits while the view is busy, unless the run was stopped."""
        while not self.stop.is_set():
            with suppress(queue.Full):
                self.events.put(event, timeout=POLL_SECONDS)
                return

    def check(self) -> None:
        """Raise Stopped if the run is to end."""
        if self.stop.is_set():
            raise Stopped

    def wait(self) -> None:
        """Another run still uses the model."""
        self.check()
        self.tell(lambda view: view.phase("waiting"))


def run(work: Callable[[Reins], T], output: Path, view: View) -> T:
    """Do the work and return its result.

    When a method of `view` raises, the thread is told to stop and given a moment; what cannot be interrupted ends
    by itself later, and the next run waits for it.

    Args:
        work: Called on the thread.
        output: The file that it makes; nothing is left of it after an error or a stop.
        view: Is told how it goes on.

    Raises:
        LiveTalkError: of the kind that says what is wrong.
        BaseException: what `view` raised.
    """
    thread = _Thread(work, output)
    thread.start()
    try:
        while thread.handle_event(view):
            view.poll()
    except BaseException:
        thread.reins.stop.set()
        thread.join(_PATIENCE_SECONDS)
        if not thread.is_alive():
            # It may have finished its work just before it was told.
            output.unlink(missing_ok=True)
        raise
    thread.join()
    if thread.error is not None:
        raise thread.error
    return thread.result[0]


class _Thread(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[Reins], T], output: Path) -> None:
        super().__init__(name="livetalk-run", daemon=True)
        self.reins = Reins()
        self.result: list[T] = []
        self.error: BaseException | None = None
        self._work, self._output = work, output

    def handle_event(self, view: View) -> bool:
        """Hand the next event to the view, waiting at most 50 ms for one; False after the last."""
        with suppress(queue.Empty):
            event = self.reins.events.get(timeout=POLL_SECONDS)
            if event is None:
                return False
            event(view)
        return True

    def run(self) -> None:
        """See `threading.Thread`: do the work, and keep its result or its error."""
        try:
            self.result.append(self._work(self.reins))
            if self.reins.stop.is_set():
                self._output.unlink(missing_ok=True)
        except BaseException as error:
            if isinstance(error, OutputError) and error.details.get("errno"):
                error.hint = TEMPORARY_FOLDER_HINT  # nobody chose the folder of this file
            self.error = error
            self._output.unlink(missing_ok=True)
        finally:
            self.reins.tell(None)
