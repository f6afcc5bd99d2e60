"""A stream at the client: sound in, chunks out, frames straight from shared memory."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AudioError, DeadlineError, LiveTalkError
from .calls import Call, Calls, Deadline, again
from .connection import close_all
from .frame_ring import FrameRing
from .messages import AudioAccepted, Cancel, Cancelled, ChunkReady, CloseStream, NextChunk, PushAudio, StreamOpened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_PART_BYTES = 4 * 2**20
_ROOM_POLL = 0.05
ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class RemoteChunk:
    """Frames of one chunk.

    Attributes:
        index: Chunk number.
        first_frame: Number of its first frame within the stream.
        frames: uint8 [F,H,W,3], read only. Shared memory that is reused when nothing refers to it any more.
        timings, stats: As the engine measured them.
        state: From which the stream continues after this chunk; b"" unless it was opened with `want_state`.
    """

    index: int
    first_frame: int
    frames: NDArray[np.uint8]
    timings: dict[str, float]
    stats: dict[str, float]
    state: bytes = b""


class RemoteStream:
    """One stream of a daemon; every method can be called from any thread.

    Attributes:
        number: The daemon's number for it.
        chunk, samples: Where it stood when it was opened: the next chunk and the sound heard before it.

    Args:
        calls: The connection.
        opened: The answer that opened it.
        ring: Descriptor of the frames' memory; closed here.
    """

    def __init__(self, calls: Calls, opened: StreamOpened, ring: int) -> None:
        self.number, self.chunk, self.samples = opened.stream, opened.chunk, opened.samples
        self._calls = calls
        try:
            self._ring = FrameRing(ring, opened.slots, opened.slot_bytes, writable=False)
        finally:
            close_all([ring])
        self._epoch = opened.epoch
        # With too few slots left for the ranks, frames are copied and their slot given back at once.
        self._views_allowed = max(0, opened.slots - 2)
        self._views: set[int] = set()
        self._released: deque[int] = deque()  # appended to by finalizers, which may run anywhere
        self._asked: Call | None = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False

    def push_audio(self, samples: ArrayLike, *, final: bool = False, timeout: float = ANSWER_SECONDS) -> None:
        """Add sound; waits while the daemon has no room for it.

        Args:
            samples: Mono, any float type, [S], at the geometry's sample rate.
            final: No sound follows; the stream ends with the frames of this one.
            timeout: Longest wait.

        Raises:
            AudioError: not one-dimensional, or not finite.
            DeadlineError: no room in time; the samples up to there were taken.
        """
        data = memoryview(as_bytes(samples))
        deadline, epoch = Deadline(timeout), self._epoch
        while True:
            part = data[:_PART_BYTES]
            last = len(part) == len(data)
            call = self._calls.ask(ANSWER_SECONDS, PushAudio, self.number, epoch, bytes(part), final and last)
            assert isinstance(call.answer, AudioAccepted)
            data = data[4 * call.answer.samples :]
            if not data:
                return
            if call.answer.samples == 0:
                if deadline.left == 0:
                    raise DeadlineError(f"The daemon had no room for sound for {timeout:g} s.", "Read the chunks.")
                time.sleep(_ROOM_POLL)

    def next_chunk(self, timeout: float | None = None) -> RemoteChunk | None:
        """The next chunk; None when the stream has ended.

        After a DeadlineError nothing is lost: the next call goes on waiting for the same chunk.

        Raises:
            DeadlineError: no chunk within `timeout` seconds.
            LiveTalkError: the stream failed.
        """
        deadline = Deadline(timeout)
        with self._reading:
            while True:
                with self._lock:
                    call, epoch = self._asked or self._ask(), self._epoch
                if not call.wait(deadline.left):
                    raise DeadlineError(f"No chunk within {timeout:g} s.", "Push sound, or wait longer.")
                with self._lock:
                    if self._asked is call:
                        self._asked = None
                if call.error is not None:
                    raise again(call.error)
                answer = call.answer
                if not isinstance(answer, ChunkReady):
                    if getattr(answer, "epoch", epoch) == self._epoch:
                        return None
                elif answer.epoch == self._epoch:
                    return self._chunk(answer)
                else:  # a barge-in came between
                    self._released.append(answer.slot)

    def chunks(self, timeout: float | None = None) -> Iterator[RemoteChunk]:
        """All chunks until the stream ends, each within `timeout` seconds."""
        while (chunk := self.next_chunk(timeout)) is not None:
            yield chunk

    def cancel(self, timeout: float = ANSWER_SECONDS) -> int:
        """Drop queued sound and chunks that were not read; the stream goes on with new sound after the last read one.

        Returns:
            The step before which the running chunk was left; -1 if none ran.
        """
        call = self._calls.ask(timeout, Cancel, self.number)
        assert isinstance(call.answer, Cancelled)
        with self._lock:
            self._epoch = call.answer.epoch
        return call.answer.step

    def close(self) -> None:
        """Give the stream up; frames that were read stay valid. Does nothing the second time."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # A daemon that is gone has forgotten the stream too.
        try:
            self._calls.ask(ANSWER_SECONDS, CloseStream, self.number)
        except LiveTalkError:
            return

    def __enter__(self) -> RemoteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self) -> Call:
        released = []
        while self._released:
            slot = self._released.popleft()
            self._views.discard(slot)
            released.append(slot)
        self._asked = self._calls.start(NextChunk, self.number, self._epoch, released)
        return self._asked

    def _chunk(self, ready: ChunkReady) -> RemoteChunk:
        header, view = self._ring.read(ready.slot, stream=ready.stream, epoch=ready.epoch, chunk=ready.chunk)
        frames: Any = view
        if len(self._views) < self._views_allowed:
            self._views.add(ready.slot)
            # Views of a view refer to this array, not to each other: it dies with the last of them.
            weakref.finalize(_owner(view), self._released.append, ready.slot).atexit = False
        else:
            frames = view.copy()
            frames.flags.writeable = False
            self._released.append(ready.slot)
        return RemoteChunk(ready.chunk, header.first_frame, frames, ready.timings, ready.stats, ready.state)


def _owner(view: Any) -> Any:
    """The array that all views of these frames keep alive."""
    import numpy as np

    owner = view
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    return owner


def as_bytes(samples: ArrayLike) -> bytes:
    """Samples as little-endian float32; AudioError if they cannot be sound."""
    import numpy as np

    sound = np.ascontiguousarray(samples, dtype="<f4")
    if sound.ndim != 1:
        raise AudioError(f"Sound has the shape {list(sound.shape)}.", "Give mono samples in one dimension.")
    if not np.isfinite(sound).all():
        raise AudioError("The sound holds samples that are not finite.", "Clean the recording.")
    return sound.tobytes()
