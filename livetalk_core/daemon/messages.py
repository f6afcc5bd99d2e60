"""Every message between a client and the supervisor."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .wire import SCHEMA_VERSION, Blob, ErrorInfo, Id, Message, Name, Numbers, Small, State, Text

Slots = Annotated[list[Small], msgspec.Meta(max_length=64)]
Shape = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=65_536)]], msgspec.Meta(min_length=5, max_length=5)]


class Hello(Message, frozen=True):
    """First message of a client, after the token."""

    request: Id
    version: Name
    key: Name
    schema: Small = SCHEMA_VERSION


class LoadModel(Message, frozen=True):
    """Start the ranks and load the model, unless that is done; answered by ModelLoaded."""

    request: Id


class EncodeAudio(Message, frozen=True):
    """Encode a whole clip; `samples` float32 little-endian mono; answered by AudioEncoded."""

    request: Id
    config: Blob
    samples: Blob


class OpenStream(Message, frozen=True):
    """Open a stream: settings as JSON, the picture as the bytes of its file; answered by StreamOpened.

    `state` continues an earlier stream, `want_state` sends the state along with every chunk, `extras` are
    features in place of the prompt's or the picture's (see `extras`).
    """

    request: Id
    config: Blob
    picture: Blob
    clip: Id = 0
    state: State = b""
    want_state: bool = False
    extras: Blob = b""


class PushAudio(Message, frozen=True):
    """Sound for a stream, float32 little-endian; `final` ends it; answered by AudioAccepted."""

    request: Id
    stream: Id
    epoch: Small
    samples: Blob
    final: bool = False


class NextChunk(Message, frozen=True):
    """Ask for the next chunk and give back slots; answered by ChunkReady or StreamEnded when there is one."""

    request: Id
    stream: Id
    epoch: Small
    released: Slots = msgspec.field(default_factory=list)


class Cancel(Message, frozen=True):
    """Drop all queued sound and undelivered chunks of a stream; answered by Cancelled."""

    request: Id
    stream: Id


class CloseStream(Message, frozen=True):
    """Forget a stream; answered by Done."""

    request: Id
    stream: Id


class DecodeLatents(Message, frozen=True):
    """Decode float32 latents [B,C,T,h,w] from the descriptor that comes along; answered by StreamOpened.

    `normalised` latents have the VAE's mean and deviation taken out, as this model's own; others are the VAE's plain
    output. `tiled` decodes approximately.
    """

    request: Id
    shape: Shape
    frames: Small
    height: Small
    width: Small
    tiled: bool = False
    normalised: bool = True


class Stats(Message, frozen=True):
    """Ask how things stand; answered by StatsReport."""

    request: Id


class Unload(Message, frozen=True):
    """Stop the ranks, which frees all their memory; answered by Done."""

    request: Id


class Shutdown(Message, frozen=True):
    """End the daemon; answered by Done before it goes."""

    request: Id


Request = (
    Hello | LoadModel | EncodeAudio | OpenStream | PushAudio | NextChunk | Cancel | CloseStream
    | DecodeLatents | Stats | Unload | Shutdown
)  # fmt: skip


class Welcome(Message, frozen=True):
    """Answer to Hello."""

    request: Id
    pid: Id
    world_size: Small
    detached: bool


class ModelInfo(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What rank 0 loaded; `defaults` is the JSON of the model's own settings. A "vae" decodes latents only."""

    name: Name = ""
    revision: Name = ""
    device: Name = ""
    dtype: Name = ""
    defaults: Text = "{}"
    kind: Literal["model", "vae"] = "model"


class ModelLoaded(Message, frozen=True):
    """Answer to LoadModel."""

    request: Id
    model: ModelInfo


class AudioEncoded(Message, frozen=True):
    """Answer to EncodeAudio: the clip's number and how many video frames it covers."""

    request: Id
    clip: Id
    frames: Small


class StreamOpened(Message, frozen=True):
    """Answer to OpenStream and DecodeLatents; the ring's descriptor comes along.

    `chunk` and `samples`: where the stream stands, which is not its beginning if it continues from a state.
    """

    request: Id
    stream: Id
    epoch: Small
    slots: Small
    slot_bytes: Id
    chunk: Small = 0
    samples: Id = 0


class AudioAccepted(Message, frozen=True):
    """Answer to PushAudio: how many of the samples were taken; the rest has no room yet."""

    request: Id
    samples: Id
    pending: Id


class ChunkReady(Message, frozen=True):
    """Frames uint8 [frames,height,width,3] lie in a slot of the ring; `state` only for a stream that wants it."""

    request: Id
    stream: Id
    epoch: Small
    chunk: Small
    slot: Small
    first_frame: Id
    frames: Small
    height: Small
    width: Small
    timings: Numbers = msgspec.field(default_factory=dict)
    stats: Numbers = msgspec.field(default_factory=dict)
    state: State = b""


class StreamEnded(Message, frozen=True):
    """No chunk follows: the sound is over and all was delivered, or the daemon let the stream go."""

    request: Id
    stream: Id
    epoch: Small
    chunks: Small
    reason: Name = "finished"


class Cancelled(Message, frozen=True):
    """Answer to Cancel: the epoch that now holds, and where the running chunk stopped (-1: none ran)."""

    request: Id
    stream: Id
    epoch: Small
    step: Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)] = -1


class RankStats(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where one rank is."""

    rank: Small
    pid: Id
    phase: Name
    stream: Id
    chunk: Small
    step: Small


class StatsReport(Message, frozen=True):
    """Answer to Stats.

    `state` as in Health; `idle`: seconds without work, of those that the daemon waits before it ends; `last_rung`:
    how the ranks were ended last time.
    """

    request: Id
    state: Name
    pid: Id
    uptime: float
    idle: float
    restarts: Small
    last_rung: Name
    clients: Small
    streams: Small
    chunks: Id
    ring_bytes: Id
    ranks: Annotated[list[RankStats], msgspec.Meta(max_length=4096)]


class Done(Message, frozen=True):
    """The request was carried out."""

    request: Id


class Failed(Message, frozen=True):
    """The request (or, with request 0, a stream) failed."""

    request: Id
    error: ErrorInfo
    stream: Id = 0


class Progress(Message, frozen=True):
    """Event: rank 0 finished a step of a stream's chunk, or works on a phase of loading."""

    stream: Id
    phase: Name
    chunk: Small
    step: Small
    steps: Small


class Health(Message, frozen=True):
    """Event: the group of ranks changed its state; `error` says why, if it was a fault."""

    state: Literal["stopped", "starting", "loading", "ready", "stopping", "restarting", "dead"]
    restarts: Small
    error: ErrorInfo | None = None


Event = Progress | Health
Reply = (
    Welcome | ModelLoaded | AudioEncoded | StreamOpened | AudioAccepted | ChunkReady | StreamEnded
    | Cancelled | StatsReport | Done | Failed
)  # fmt: skip
ToClient = Reply | Event
