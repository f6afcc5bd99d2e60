"""The model on the ranks of a daemon, fed with sound and read chunk by chunk."""

from __future__ import annotations

import contextlib
import io
import logging
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from PIL import Image

from .. import telemetry
from ..audio import collect_clip
from ..config import StreamConfig
from ..daemon.calls import POLL_SECONDS
from ..daemon.client import Client, RemoteChunk, RemoteStream
from ..daemon.daemon_config import DaemonConfig
from ..daemon.extras import pack_extras
from ..daemon.messages import Event, Health, ModelInfo
from ..errors import DaemonError, DaemonUnavailableError, DeadlineError, LiveTalkError
from ..loading.describe import RANDOM_PREFIX
from ..loading.layout import EMBEDDED, EMBEDDED_FOLDER, find_model
from ..loading.model_files import files_stamp
from ..media import cover_and_crop
from ..media.pictures import MIN_SIDE
from .backend import Watch
from .device import settled_device
from .facts import Made, ModelFacts
from .feeder import Feeder
from .request import VideoRequest

if TYPE_CHECKING:
    from .prepare import Job
    from .sound_track import SoundTrack

logger = logging.getLogger("livetalk")


def daemon_config(request: VideoRequest, dtype: str | None = None) -> DaemonConfig:
    """The daemon that a request wants: whoever asks for the same shares it.

    Args:
        request: Its model, device, number format, world size and daemon settings are used.
        dtype: In place of the request's number format.

    Raises:
        DeviceError: a device or number format that this machine does not offer.
        ConfigError: a world that cannot be.
    """
    device, number_format = settled_device(request.device, dtype or request.dtype)
    world, given = request.world_size or 1, request.daemon or DaemonConfig()
    if request.devices is not None:
        device = ",".join(f"cuda:{number}" for number in request.devices)
    elif ":" not in request.device:
        device = device.partition(":")[0]  # each rank its own
    if device.startswith("cuda"):
        # Late: with torch, which GPUs need anyhow.
        from ..daemon.rank_device import rank_device

        rank_device(device, 0, world if given.hosts is None else given.hosts.ranks_per_node)
    model, revision = _weights(request.model)
    options = given.options if request.offload == "auto" else {**given.options, "offload": request.offload}
    return msgspec.structs.replace(
        given, model=model, revision=revision, device=device, dtype=number_format, compile=request.compile,
        world_size=world, attention=request.attention, options=options, detached=request.detached or given.detached,
    )  # fmt: skip


def _weights(model: str | None) -> tuple[str | None, str]:
    """A model as the ranks find it, wherever they run, and what changes when its files do."""
    if model is not None and model.startswith(RANDOM_PREFIX):
        return model, ""
    if model in (None, EMBEDDED):
        return None, files_stamp(EMBEDDED_FOLDER)
    folder = Path(str(model)).absolute()
    return str(folder), files_stamp(folder)


class DaemonBackend:
    """See `Backend`; holds a lease on the daemon from the first `load` to `close`.

    Args:
        config: The daemon to start or join.
    """

    def __init__(self, config: DaemonConfig) -> None:
        self._config = config
        self._lease: Client | None = None
        self._loading: deque[Event] = deque(maxlen=64)
        self._pids: tuple[int, ...] = ()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """See `Backend`."""
        return self._pids

    def load(self, watch: Watch) -> ModelFacts:
        """See `Backend`."""
        watch.check()
        self._loading.clear()
        kept = self._lease is not None
        try:
            model = self._load(watch)
        except DaemonError as error:
            if self._lease is None or not (kept or isinstance(error, DaemonUnavailableError)):
                raise
            # It may have been idle for too long since the last time, was ended by somebody else, or has given its ranks
            # up, or is about to. One of our own that has would be joined again.
            if not self._lease.welcome.detached:
                with contextlib.suppress(LiveTalkError):
                    self._lease.shutdown()
            self.close()
            model = self._load(watch)
        assert self._lease is not None
        self._pids = _pids(self._lease)
        world = self._lease.welcome.world_size
        return ModelFacts(model.name, model.revision, model.device, model.dtype, world, self._pids)

    def open(self, job: Job, sound: SoundTrack, watch: Watch) -> Generator[Made, None, None]:
        """See `Backend`."""
        # A connection of its own takes everything of this stream with it when it ends.
        events: deque[Event] = deque()
        hear = Hearing(events, watch)
        client = Client.start_or_join(self._config, events.append, watch.check)
        try:
            stream = _open_stream(client, job, sound, hear)
        except BaseException:
            client.close()
            raise
        return self._chunks(client, stream, job, sound, hear)

    def close(self) -> None:
        """See `Backend`."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.close()

    def _load(self, watch: Watch) -> ModelInfo:
        if self._lease is None:
            watch.observer.phase("starting")
            self._lease = Client.start_or_join(self._config, self._loading.append, watch.check)
        hear = Hearing(self._loading, watch)
        model = self._lease.load_model(poll=hear)
        hear()
        return model

    def _chunks(
        self, client: Client, stream: RemoteStream, job: Job, sound: SoundTrack, hear: Hearing
    ) -> Generator[Made, None, None]:
        feeder = Feeder(stream, sound, job.config) if job.config.audio.mode == "stream" else None
        # The connection ends first, so that the feeder has nobody to wait for.
        with feeder or contextlib.nullcontext(), client:
            while (chunk := _next(stream, feeder, hear)) is not None:
                if feeder is not None:
                    feeder.delivered(chunk.index)
                if hear.recovered:
                    hear.recovered, self._pids = False, _pids(client)
                yield Made(chunk.index, chunk.first_frame, chunk.frames, chunk.timings, chunk.stats, chunk.state)


class Hearing:
    """Passes on what a daemon tells, on the thread that produces; called again and again while it waits.

    Args:
        events: Filled by the connection's thread.
        watch: Is told, and may stop it.
    """

    def __init__(self, events: deque[Event], watch: Watch) -> None:
        self.recovered = False
        self._events, self._watch = events, watch
        self._recovering = False

    def __call__(self) -> None:
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Health):
                self._health(event)
            elif event.phase in ("step", "decode") and event.step:
                self._watch.observer.step(event.chunk, event.step, event.steps)
        self._watch.check()

    def _health(self, event: Health) -> None:
        observer = self._watch.observer
        if event.state == "restarting":
            self._recovering = True
            reason = "A rank failed." if event.error is None else event.error.message
            logger.warning("%s The ranks are replaced; the video goes on from the last finished chunk.", reason)
            observer.phase("recovering")
        elif event.state == "ready" and self._recovering:
            self._recovering, self.recovered = False, True
            observer.phase("generating")
        elif event.state == "loading" and not self._recovering:
            observer.phase("loading")


def _open_stream(client: Client, job: Job, sound: SoundTrack, hear: Hearing) -> RemoteStream:
    config, request = job.config, job.request
    clip = 0
    if config.audio.mode == "whole":
        clip = client.encode_audio(collect_clip(sound, config.geometry), config, hear).clip
    _note_prompt(job)
    # Packing needs torch; whoever gives no features may do without.
    given = request.context is not None or request.clip_features is not None
    extras = pack_extras(request.context, request.clip_features) if given else b""
    return client.open_stream(
        config, _picture(job.picture, config), clip=clip,
        state=b"" if job.saved is None else job.saved.to_bytes(), want_state=request.state is not None,
        extras=extras, poll=hear,
    )  # fmt: skip


def _note_prompt(job: Job) -> None:
    """Say what the ranks write to their logs only: nobody reads the prompt."""
    request, prompt = job.request, job.config.prompt
    if not prompt or prompt == job.manifest.defaults.prompt or request.context is not None:
        return
    random = request.model is not None and request.model.startswith(RANDOM_PREFIX)
    if random or find_model(request.model).text_encoder is None:
        reason = "the model has no text encoder"
        telemetry.emit("prompt_ignored", logging.WARNING, model=job.manifest.name, reason=reason)


def _next(stream: RemoteStream, feeder: Feeder | None, hear: Hearing) -> RemoteChunk | None:
    """The next chunk; None at the end of the stream."""
    while True:
        hear()
        if feeder is not None:
            feeder.check()
        with contextlib.suppress(DeadlineError):
            return stream.next_chunk(POLL_SECONDS)


def _pids(client: Client) -> tuple[int, ...]:
    return tuple(rank.pid for rank in client.stats().ranks)


def _picture(picture: Image.Image, config: StreamConfig) -> bytes:
    """The picture as the model will see it, as a PNG: large photographs need not travel."""
    if min(config.width, config.height) >= MIN_SIDE:
        picture = Image.fromarray(cover_and_crop(picture, config.width, config.height))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
