"""Sound on its way to the ranks: pushed as soon as a chunk's worth is there, no further ahead than needed."""

from __future__ import annotations

import threading
from types import TracebackType

import numpy as np

from ..audio import cut_slices
from ..config import StreamConfig
from ..daemon.remote_stream import RemoteStream
from .sound_track import SoundTrack

_AHEAD = 4
_LEAVE_SECONDS = 1.0


class Feeder:
    """Reads the sound on a thread of its own, because a pipe may keep it waiting while frames come.

    Args:
        stream: Takes the sound; `stream.samples` of it were heard already.
        sound: The sound from its beginning.
        config: Settings of the stream.
    """

    def __init__(self, stream: RemoteStream, sound: SoundTrack, config: StreamConfig) -> None:
        self._stream, self._sound, self._geometry = stream, sound, config.geometry
        self._room = threading.Semaphore(_AHEAD)
        self._leaving = False
        self._pushed = self._delivered = stream.chunk
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="livetalk-feeder", daemon=True)

    def delivered(self, chunk: int) -> None:
        """A chunk has come: there is room for the sound of one more."""
        self._delivered = chunk + 1
        self._room.release()

    def check(self) -> None:
        """Raise what is wrong with the sound, once all chunks of the sound before it have come."""
        if self._error is not None and self._delivered >= self._pushed:
            raise self._error

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        self._room.release()
        # A pipe that stays silent keeps the thread until the process ends.
        self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        try:
            self._feed()
        except BaseException as error:
            # Without the stream's own errors: whoever reads the chunks meets them there.
            if not self._leaving:
                self._error = error

    def _feed(self) -> None:
        geometry = self._geometry
        for part in cut_slices(
            self._sound, geometry.slice_samples, geometry.sample_rate, skip=self._stream.samples
        ):
            self._room.acquire()
            if self._leaving:
                return
            self._stream.push_audio(part)
            self._pushed += 1
        self._stream.push_audio(np.zeros(0, np.float32), final=True)
