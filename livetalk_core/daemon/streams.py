"""One stream in the supervisor: its sound, its ring, its position; what was made, delivered, given back."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field

import msgspec

from ..chunking import adds_a_frame
from ..config import ChunkGeometry, StreamConfig
from ..errors import AudioError, LiveTalkError
from .messages import ChunkReady
from .worker_messages import ChunkDone, Run

MAX_BACKLOG = 64 * 2**20
SAMPLE_BYTES = 4


@dataclass(frozen=True)
class Position:
    """Where a stream stands between two chunks: all that a restart needs."""

    chunk: int = 0
    samples: int = 0
    state: bytes = b""
    ended: bool = False


@dataclass(frozen=True)
class Committed:
    """A chunk that all ranks finished, waiting in its slot, and the position after it."""

    ready: ChunkReady
    after: Position


@dataclass
class SoundBacklog:
    """Sound that no chunk has used yet, float32 bytes."""

    data: bytearray = field(default_factory=bytearray)
    final: bool = False

    @property
    def samples(self) -> int:
        """How many samples wait."""
        return len(self.data) // SAMPLE_BYTES

    def push(self, data: bytes, final: bool) -> int:
        """Take as much as there is room for; returns the samples taken.

        Raises:
            AudioError: half a sample, or sound after the end.
        """
        if len(data) % SAMPLE_BYTES:
            raise AudioError(f"Sound of {len(data)} bytes is not whole float32 samples.")
        if self.final and data:
            raise AudioError("Sound came after its end.", "Open a new stream, or cancel this one first.")
        room = MAX_BACKLOG - len(self.data)
        taken = data[: room - room % SAMPLE_BYTES]
        self.data += taken
        self.final = self.final or (final and len(taken) == len(data))
        return len(taken) // SAMPLE_BYTES

    def cut(self, chunk: int, used: int, geometry: ChunkGeometry) -> bytes | None:
        """The sound of the next chunk, left in place; None if there is not enough or no frame follows."""
        count = min(self.samples, geometry.slice_samples)
        if count < geometry.slice_samples and not self.final:
            return None
        if not adds_a_frame(chunk, used, count, geometry):
            return None
        return bytes(self.data[: count * SAMPLE_BYTES])


@dataclass
class StreamRecord:
    """One stream of one client.

    Attributes:
        ring: Descriptor of its frames' memory, the record's own.
        position: After the last committed chunk.
        delivered: After the last chunk that was handed to the client.
        resident: Generation of ranks that hold the stream open; 0 if none does.
        stale: The ranks' state is ahead of `position`.
        running: Sound of the chunk that runs.
        asked: The client's request for a chunk that is not answered yet.
        blocked_since: When compute began to wait for the reader.
        latents: Descriptor of latents, for a decoding in place of a stream.
        want_state: Whether the client is sent the state with every chunk.
    """

    number: int
    client: int
    config: StreamConfig | None
    config_json: bytes
    picture: bytes
    clip: int
    ring: int
    slots: int
    slot_bytes: int
    latents: int = -1
    shape: tuple[int, ...] = ()
    tiled: bool = False
    normalised: bool = True
    want_state: bool = False
    extras: bytes = b""
    epoch: int = 0
    position: Position = Position()
    delivered: Position = Position()
    resident: int = 0
    opened: bool = False
    stale: bool = False
    running: bytes | None = None
    asked: int | None = None
    open_request: int | None = None
    cancel_requests: list[int] = field(default_factory=list)
    blocked_since: float | None = None
    error: LiveTalkError | None = None
    sound: SoundBacklog = field(default_factory=SoundBacklog)
    waiting: deque[Committed] = field(default_factory=deque)
    free: set[int] = field(default_factory=set)
    busy_slot: int = -1

    def __post_init__(self) -> None:
        self.free = set(range(self.slots))

    @property
    def listens(self) -> bool:
        """Whether chunks are made from pushed sound; otherwise from a clip or from latents."""
        return self.config is not None and self.config.audio.mode == "stream"

    def next_sound(self) -> bytes | None:
        """The sound of the next chunk (b"" where none is needed); None if there is no next chunk now."""
        if self.position.ended or self.error is not None or self.running is not None:
            return None
        if not self.listens:
            return b""
        assert self.config is not None
        return self.sound.cut(self.position.chunk, self.position.samples, self.config.geometry)

    def stand(self, chunk: int, samples: int, ended: bool) -> None:
        """The ranks have opened the stream and say where the client's state has it stand."""
        self.position = self.delivered = Position(chunk, samples, self.position.state, ended)

    def begin(self, sound: bytes) -> Run:
        """The command that makes the next chunk."""
        self.busy_slot = min(self.free)
        self.free.discard(self.busy_slot)
        self.running = sound
        return Run(self.number, self.epoch, self.position.chunk, self.busy_slot, sound)

    def commit(self, done: ChunkDone) -> None:
        """All ranks finished the chunk that runs: it will be delivered, once."""
        used = len(self.running or b"") // SAMPLE_BYTES
        del self.sound.data[: used * SAMPLE_BYTES]
        self.position = Position(done.chunk + 1, self.position.samples + used, done.state, done.final)
        ready = ChunkReady(
            0, self.number, self.epoch, done.chunk, self.busy_slot, done.first_frame,
            done.frames, done.height, done.width, done.timings, done.stats, done.state if self.want_state else b"",
        )  # fmt: skip
        self.waiting.append(Committed(ready, self.position))
        self.running, self.busy_slot = None, -1

    def abandon(self) -> None:
        """The chunk that ran was not finished: its sound and slot are as before."""
        if self.busy_slot >= 0:
            self.free.add(self.busy_slot)
        self.running, self.busy_slot = None, -1

    def deliver(self, request: int) -> ChunkReady | None:
        """The next finished chunk as the answer to a request."""
        if not self.waiting:
            return None
        first = self.waiting.popleft()
        self.delivered = first.after
        return msgspec.structs.replace(first.ready, request=request)

    def release(self, slots: list[int]) -> None:
        """The client has done with these slots; ones that it does not hold are ignored."""
        held = {each.ready.slot for each in self.waiting} | {self.busy_slot}
        self.free |= {slot for slot in slots if 0 <= slot < self.slots} - held

    def finished(self) -> bool:
        """Whether all that can come was made."""
        if self.position.ended:
            return True
        ended = self.listens and self.sound.final and self.running is None
        return ended and self.next_sound() is None

    def cancel(self) -> None:
        """Begin a new epoch after the last delivered chunk; sound and undelivered chunks are dropped."""
        self.epoch += 1
        self.free |= {each.ready.slot for each in self.waiting}
        self.waiting.clear()
        self.sound = SoundBacklog()
        if self.position.chunk != self.delivered.chunk:
            self.stale = True
        self.position = self.delivered

    def close(self) -> None:
        """Free its memory."""
        for descriptor in (self.ring, self.latents):
            if descriptor >= 0:
                os.close(descriptor)
        self.ring = self.latents = -1
        self.waiting.clear()
        self.sound = SoundBacklog()
        self.position = self.delivered = Position()
