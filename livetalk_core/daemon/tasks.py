"""Commands for all ranks, and which one a stream needs next."""

from __future__ import annotations

from dataclasses import dataclass

from .streams import StreamRecord
from .worker_messages import Command, Encode, Open, OpenDecode, Restore


@dataclass
class Task:
    """A command that all ranks carry out.

    Attributes:
        descriptors: Per rank, what travels with the command; the owner keeps them open.
        failed_at: When the first rank reported an error.
    """

    command: Command
    stream: int = 0
    chunk: int = 0
    descriptors: dict[int, list[int]] | None = None
    failed_at: float | None = None


@dataclass
class Clip:
    """A clip's sound, kept because every generation of ranks has to encode it.

    Attributes:
        request: The client's request to encode it, until that is answered.
        resident: Generation of ranks that holds it encoded; 0 if none does.
    """

    number: int
    client: int
    request: int | None
    config: bytes
    samples: bytes
    resident: int = 0

    def encoding(self) -> Task:
        """The command that encodes it."""
        return Task(Encode(self.number, self.config, self.samples))


def next_task(record: StreamRecord, clip: Clip | None, generation: int, world: int) -> Task | None:
    """What a stream needs the ranks to do next; None if nothing can be done for it now.

    Args:
        record: The stream; marked as running where the task is its next chunk.
        clip: The clip that it speaks, if it is in mode "whole".
        generation: Of the ranks that are there.
        world: Number of ranks.
    """
    if record.error is not None:
        return None
    sound = record.next_sound()
    if record.opened and (sound is None or not record.free):
        return None
    if clip is not None and clip.resident != generation:
        return clip.encoding()
    number, chunk = record.number, record.position.chunk
    if record.resident != generation:
        return _opening(record, world)
    if record.stale:
        return Task(Restore(number, record.position.state), number, chunk)
    if sound is None:
        return None
    return Task(record.begin(sound), number, chunk)


def _opening(record: StreamRecord, world: int) -> Task:
    """Opened for the first time, or again in a new generation where it was committed last."""
    number, slots, size, chunk = record.number, record.slots, record.slot_bytes, record.position.chunk
    record.stale = False
    if record.latents >= 0:
        command = OpenDecode(number, list(record.shape), record.tiled, slots, size, record.normalised)
        given = {rank: [record.latents] if rank else [record.latents, record.ring] for rank in range(world)}
        return Task(command, number, chunk, given)
    state = record.position.state
    opening = Open(number, record.config_json, record.picture, record.clip, state, slots, size, record.extras)
    return Task(opening, number, chunk, {0: [record.ring]})
