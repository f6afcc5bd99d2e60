"""Every message between the supervisor and a rank."""

from __future__ import annotations

from typing import Literal

import msgspec

from .messages import ModelInfo, Shape
from .wire import SCHEMA_VERSION, Blob, ErrorInfo, Id, Message, Name, Numbers, Small, State

Phase = Literal["starting", "loading", "compiling", "idle", "opening", "encoding", "audio", "step", "decode", "finish"]


class Load(Message, frozen=True):
    """Load the model that the configuration names; answered by Loaded."""


class Encode(Message, frozen=True):
    """Encode a whole clip and keep it under its number; answered by Encoded."""

    clip: Id
    config: Blob
    samples: Blob


class Open(Message, frozen=True):
    """Open a stream, or continue it from `state`; answered by Opened.

    With rank 0 comes the descriptor of the stream's ring of `slots` times `slot_bytes`.
    """

    stream: Id
    config: Blob
    picture: Blob
    clip: Id
    state: State
    slots: Small
    slot_bytes: Id
    extras: Blob = b""


class OpenDecode(Message, frozen=True):
    """Open a decoding of latents; the latents' descriptor comes along, with rank 0 also the ring's.

    Its pieces are asked for by Run like chunks; a piece fits in a slot. After a restart the first Run may
    ask for a later piece than 0.
    """

    stream: Id
    shape: Shape
    tiled: bool
    slots: Small
    slot_bytes: Id
    normalised: bool = True


class Run(Message, frozen=True):
    """Make a chunk; rank 0 puts its frames into the slot; answered by ChunkDone or ChunkCancelled."""

    stream: Id
    epoch: Small
    chunk: Small
    slot: Small
    samples: Blob


class Restore(Message, frozen=True):
    """Put an open stream back to a state; answered by Opened."""

    stream: Id
    state: State


class CancelRun(Message, frozen=True):
    """Stop the stream's chunk if it runs with this epoch or an older one; not queued behind other commands."""

    stream: Id
    epoch: Small


class Close(Message, frozen=True):
    """Forget a stream; not answered."""

    stream: Id


class ForgetClip(Message, frozen=True):
    """Forget an encoded clip; not answered."""

    clip: Id


class Stop(Message, frozen=True):
    """Leave."""


Command = Load | Encode | Open | OpenDecode | Run | Restore | CancelRun | Close | ForgetClip | Stop


class Ready(Message, frozen=True):
    """First message of a rank: everything is imported and the ranks have found each other."""

    rank: Small
    version: Name
    schema: Small = SCHEMA_VERSION


class Beat(Message, frozen=True):
    """Where the rank is; `count` grows only with completed work."""

    phase: Phase
    stream: Id
    chunk: Small
    step: Small
    steps: Small
    count: Id


class Loaded(Message, frozen=True):
    """Answer to Load."""

    model: ModelInfo


class Encoded(Message, frozen=True):
    """Answer to Encode."""

    clip: Id
    frames: Small


class Opened(Message, frozen=True):
    """Answer to Open, OpenDecode and Restore: where the stream stands. `ended`: no chunk follows."""

    stream: Id
    chunk: Small = 0
    samples: Id = 0
    ended: bool = False


class ChunkDone(Message, frozen=True):
    """Answer to Run. Rank 0 fills in everything, other ranks what comes before `state`.

    `final`: no chunk follows. `state`: safetensors from which the stream continues after this chunk.
    """

    stream: Id
    epoch: Small
    chunk: Small
    final: bool = False
    state: State = b""
    first_frame: Id = 0
    frames: Small = 0
    height: Small = 0
    width: Small = 0
    timings: Numbers = msgspec.field(default_factory=dict)
    stats: Numbers = msgspec.field(default_factory=dict)


class ChunkCancelled(Message, frozen=True):
    """Answer to Run after CancelRun: stopped before `step`; the stream stands where it stood."""

    stream: Id
    epoch: Small
    chunk: Small
    step: Small


class Failure(Message, frozen=True):
    """The command failed. `fatal`: the process must not be used any more."""

    error: ErrorInfo
    fatal: bool
    stream: Id = 0
    chunk: Small = 0


Report = Ready | Beat | Loaded | Encoded | Opened | ChunkDone | ChunkCancelled | Failure
Outcome = Loaded | Encoded | Opened | ChunkDone | ChunkCancelled | Failure
