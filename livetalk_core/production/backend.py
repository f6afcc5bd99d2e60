"""Where chunks come from: one seam before the engine in this process and the ranks behind a daemon."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Protocol

from .facts import Made, ModelFacts
from .observer import Observer

if TYPE_CHECKING:
    from .prepare import Job
    from .sound_track import SoundTrack


class Stopped(Exception):  # noqa: N818 - somebody's wish, not an error
    """The request's `stop` said so."""


class Watch:
    """Who watches a production and may stop it; for the thread that produces.

    Args:
        observer: Is told how it goes on.
        stop: See `VideoRequest`.
    """

    def __init__(self, observer: Observer, stop: Callable[[], bool] | None = None) -> None:
        self.observer = observer
        self._stop = stop

    def check(self) -> None:
        """Raise Stopped if the production is to end."""
        if self._stop is not None and self._stop():
            raise Stopped


class Backend(Protocol):
    """A model that is ready, or can be made ready, for one stream after the other."""

    def load(self, watch: Watch) -> ModelFacts:
        """Load the model, unless that is done; says its phases.

        Raises:
            LiveTalkError: of the kind that says why not.
            Stopped: by the watch.
        """

    def open(self, job: Job, sound: SoundTrack, watch: Watch) -> Generator[Made, None, None]:
        """Open a stream, after `load`; the generator makes its chunks, and closing it gives the stream up.

        Raises:
            LiveTalkError, Stopped: here, and between any two chunks.
        """

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that compute now: a rank that died has been replaced."""

    def close(self) -> None:
        """Let the model go. Does not wait, and does nothing the second time."""
