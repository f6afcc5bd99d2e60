"""What the supervisor does with each message of a client."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from ..config import StreamConfig, decode_config
from ..errors import ConfigError, DaemonError, LiveTalkError, ProtocolError, StreamDroppedError
from . import messages as m
from .connection import close_all
from .daemon_config import DaemonConfig
from .engine_group import EngineGroup
from .frame_ring import create_ring, require_sealed, stride
from .scheduler import Outbox, Scheduler
from .streams import Position, StreamRecord
from .tasks import Clip
from .wire import to_info

MAX_STREAMS = 64
MAX_CLIPS = 16
_FLOAT32 = 4


class Requests:
    """Carries out requests; every one is answered exactly once.

    Args:
        config: The daemon.
        scheduler, group: What they act on.
        outbox: Where answers go.
        end: Called on Shutdown.
        clients: How many clients there are.
        idle: Seconds without work.
    """

    def __init__(
        self, config: DaemonConfig, scheduler: Scheduler, group: EngineGroup, outbox: Outbox,
        end: Callable[[str], None], clients: Callable[[], int], idle: Callable[[], float],
    ) -> None:  # fmt: skip
        self._config, self._scheduler, self._group, self._outbox = config, scheduler, group, outbox
        self._end, self._clients, self._idle = end, clients, idle
        self._numbers = itertools.count(1)
        self._started = time.monotonic()
        self._handlers: dict[type[Any], Callable[[int, Any], None]] = {
            m.LoadModel: self._load, m.EncodeAudio: self._encode, m.OpenStream: self._open,
            m.PushAudio: self._push, m.NextChunk: self._next, m.Cancel: self._cancel,
            m.CloseStream: self._close, m.Stats: self._stats, m.Unload: self._unload,
            m.Shutdown: self._shutdown,
        }  # fmt: skip

    def handle(self, client: int, message: Any, descriptors: list[int]) -> None:
        """Carry out one request of a client; an error becomes the answer.

        Raises:
            ProtocolError: a message that has no place here.
        """
        try:
            if isinstance(message, m.DecodeLatents):
                self._decode(client, message, descriptors)
                return
            handler = self._handlers.get(type(message))
            if handler is None or descriptors:
                raise ProtocolError("A message came that has no place here.")
            handler(client, message)
        except ProtocolError:
            raise
        except LiveTalkError as error:
            self._outbox.send(client, m.Failed(message.request, to_info(error)))
        except OSError as error:  # no descriptors or memory left: this request's misfortune, not everybody's
            refused = DaemonError(f"The system refused the daemon something ({error.strerror}).", "Close some streams.")
            self._outbox.send(client, m.Failed(message.request, to_info(refused)))
        finally:
            close_all(descriptors)

    def _load(self, client: int, message: m.LoadModel) -> None:
        if self._group.state == "ready":
            self._outbox.send(client, m.ModelLoaded(message.request, self._group.model))
            return
        self._group.ensure(time.monotonic())
        self._scheduler.waiting_load.append((client, message.request))

    def _encode(self, client: int, message: m.EncodeAudio) -> None:
        decode_config(StreamConfig, message.config, "stream settings")
        clips = self._scheduler.clips
        if len(clips) >= MAX_CLIPS:
            raise ConfigError(f"{len(clips)} clips are held.", "Close the programs that encoded them.")
        self._group.ensure(time.monotonic())
        number = next(self._numbers)
        clips[number] = Clip(number, client, message.request, message.config, message.samples)

    def _open(self, client: int, message: m.OpenStream) -> None:
        config = decode_config(StreamConfig, message.config, "stream settings")
        whole = config.audio.mode == "whole"
        clip = self._scheduler.clips.get(message.clip)
        if whole != (message.clip > 0) or (whole and (clip is None or clip.client != client)):
            raise ConfigError("A stream in whole mode needs a clip, one in stream mode takes none.",
                              "Encode the sound first.", setting="audio.mode")  # fmt: skip
        slot_bytes = config.geometry.frames * config.width * config.height * 3
        self._admit(client, message.request, slot_bytes, config=config, config_json=message.config,
                    picture=message.picture, clip=message.clip, position=Position(state=message.state),
                    want_state=message.want_state, extras=message.extras)  # fmt: skip

    def _decode(self, client: int, message: m.DecodeLatents, descriptors: list[int]) -> None:
        size = _FLOAT32
        for axis in message.shape:
            size *= axis
        if len(descriptors) != 1 or size > 2**34:
            raise ProtocolError("Latents come with one descriptor, and with at most 16 GiB.")
        require_sealed(descriptors[0], size)
        slot_bytes = message.frames * message.height * message.width * 3
        self._admit(client, message.request, slot_bytes, config=None, config_json=b"", picture=b"", clip=0,
                    latents=os.dup(descriptors[0]), shape=tuple(message.shape), tiled=message.tiled,
                    normalised=message.normalised)  # fmt: skip

    def _admit(self, client: int, request: int, slot_bytes: int, **fields: Any) -> None:
        """Make the record of a stream; it is answered when all ranks have opened it."""
        try:
            if self._config.transport == "tcp":
                raise ConfigError("Frames travel through shared memory, which a TCP connection cannot hand over.",
                                  "Use transport 'unix', or run the engine in this process.")  # fmt: skip
            if len(self._scheduler.streams) >= MAX_STREAMS:
                raise ConfigError(f"{MAX_STREAMS} streams are open.", "Close some of them.")
            self._group.ensure(time.monotonic())
            slots = self._config.slots
            ring = create_ring(slots, slot_bytes)
        except LiveTalkError:
            close_all([fields.get("latents", -1)])
            raise
        record = StreamRecord(number=next(self._numbers), client=client, ring=ring, slots=slots,
                              slot_bytes=slot_bytes, open_request=request, **fields)  # fmt: skip
        self._scheduler.add(record)

    def _push(self, client: int, message: m.PushAudio) -> None:
        record = self._record(client, message.stream)
        taken = 0
        if message.epoch == record.epoch:
            if record.error is not None:
                raise record.error
            if not record.listens:
                raise ConfigError("This stream takes no sound.", "Push sound to streams in mode 'stream' only.")
            taken = record.sound.push(message.samples, message.final)
        else:
            taken = len(message.samples) // _FLOAT32  # sound of a cancelled epoch: swallowed
        self._outbox.send(client, m.AudioAccepted(message.request, taken, record.sound.samples))
        if message.final and record.asked is not None:
            self._scheduler.ask(record, record.asked)

    def _next(self, client: int, message: m.NextChunk) -> None:
        record = self._record(client, message.stream)
        record.release(message.released)
        if record.asked is not None:
            raise ProtocolError("A chunk of this stream was asked for twice.")
        self._scheduler.ask(record, message.request)

    def _cancel(self, client: int, message: m.Cancel) -> None:
        self._scheduler.cancel(self._record(client, message.stream), message.request)

    def _close(self, client: int, message: m.CloseStream) -> None:
        record = self._scheduler.streams.get(message.stream)
        if record is not None and record.client == client:
            self._scheduler.close(record)
        self._outbox.send(client, m.Done(message.request))

    def _stats(self, client: int, message: m.Stats) -> None:
        streams = self._scheduler.streams.values()
        group = self._group.group
        ranks = [
            m.RankStats(rank.number, rank.process.pid, beat.phase, beat.stream, beat.chunk, beat.step)
            for rank in (group.ranks if group else [])
            for beat in [rank.progress.beat]
        ]
        self._outbox.send(client, m.StatsReport(
            message.request, self._group.state, os.getpid(), time.monotonic() - self._started,
            self._idle(), self._group.budget.total, self._group.rung, self._clients(), len(streams),
            self._scheduler.chunks,
            sum(each.slots * stride(each.slot_bytes) for each in streams if each.ring >= 0), ranks,
        ))  # fmt: skip

    def _unload(self, client: int, message: m.Unload) -> None:
        self._scheduler.fail_all(StreamDroppedError("The model was unloaded.", "Open the stream again."))
        self._group.stop(time.monotonic())
        self._outbox.send(client, m.Done(message.request))

    def _shutdown(self, client: int, message: m.Shutdown) -> None:
        self._outbox.send(client, m.Done(message.request))
        self._end("it was asked to")

    def _record(self, client: int, number: int) -> StreamRecord:
        """A stream of this client; another client's stream is as unknown as none."""
        record = self._scheduler.streams.get(number)
        if record is None or record.client != client:
            raise StreamDroppedError(f"There is no stream {number}.", "Open one.", stream=number)
        return record
