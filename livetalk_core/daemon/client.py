"""The daemon from outside: start or join it, open streams on it; without torch and quick to import."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import __version__
from ..config import StreamConfig
from ..errors import AudioError, ConfigError, DaemonUnavailableError, ImageError, StateError
from .calls import Calls, Poll
from .daemon_config import DaemonConfig
from .messages import (
    AudioEncoded,
    DecodeLatents,
    EncodeAudio,
    Event,
    Hello,
    LoadModel,
    ModelInfo,
    ModelLoaded,
    OpenStream,
    Shutdown,
    Stats,
    StatsReport,
    StreamOpened,
    Unload,
    Welcome,
)
from .remote_stream import ANSWER_SECONDS, RemoteChunk, RemoteStream, as_bytes
from .wire import MAX_BLOB, MAX_STATE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Client", "DaemonConfig", "RemoteChunk", "RemoteStream"]

Listener = Callable[[Event], None]


class Client:
    """A lease on a daemon; every method can be called from any thread.

    Use `start_or_join`. An owned daemon ends when its last client has closed or died.

    Attributes:
        welcome: Process, number of ranks and kind of life of the daemon.
    """

    def __init__(self, config: DaemonConfig, calls: Calls, welcome: Welcome) -> None:
        self.config, self.welcome = config, welcome
        self._calls = calls

    @classmethod
    def start_or_join(
        cls, config: DaemonConfig, on_event: Listener | None = None, poll: Poll | None = None
    ) -> Client:
        """Connect to the daemon with this configuration; start it if there is none.

        Args:
            config: What it runs.
            on_event: Is told of progress and health, on another thread; must not wait.
            poll: Called while this waits; what it raises ends it.

        Raises:
            AccessError: the folder for sockets is not private to this user.
            DaemonUnavailableError: it cannot be started, or not on this system.
            DeadlineError: it does not come up in time.
        """
        if not sys.platform.startswith("linux"):
            raise DaemonUnavailableError(
                f"Daemons need Linux; this is {sys.platform}.", "Run the engine in this process, with one rank."
            )
        # Late: subprocess and file locks are not needed by those who only import the names.
        from .launch import connect_or_start

        sock = connect_or_start(config, poll)
        with contextlib.suppress(DaemonUnavailableError):
            return cls._greet(sock, config, on_event, poll)
        # It was on its way out when it was joined.
        return cls._greet(connect_or_start(config, poll), config, on_event, poll)

    @classmethod
    def connect(cls, directory: Path, config: DaemonConfig, timeout: float = ANSWER_SECONDS) -> Client:
        """Connect to the daemon of a folder, which answers within `timeout` seconds; never start one.

        Raises:
            DaemonError: it does not answer, or runs something else.
        """
        from .launch import connect

        return cls._greet(connect(directory), config, None, None, timeout)

    @classmethod
    def _greet(
        cls, sock: socket.socket, config: DaemonConfig, on_event: Listener | None, poll: Poll | None,
        timeout: float = ANSWER_SECONDS,
    ) -> Client:  # fmt: skip
        calls = Calls(sock, on_event or (lambda event: None))
        try:
            call = calls.ask(timeout, Hello, __version__, config.key(), poll=poll)
        except BaseException:
            calls.close()
            raise
        assert isinstance(call.answer, Welcome)
        return cls(config, calls, call.answer)

    def load_model(self, timeout: float | None = None, poll: Poll | None = None) -> ModelInfo:
        """Start the ranks and load the model, unless that is done.

        Args:
            timeout: Longest wait; by default what the configuration's deadlines allow.
            poll: Called while this waits; what it raises ends the waiting, not the loading.

        Raises:
            LiveTalkError: of the kind that says why the model cannot be loaded.
        """
        call = self._calls.ask(self._patience if timeout is None else timeout, LoadModel, poll=poll)
        assert isinstance(call.answer, ModelLoaded)
        return call.answer.model

    def encode_audio(self, samples: ArrayLike, config: StreamConfig, poll: Poll | None = None) -> AudioEncoded:
        """Encode a whole clip [S] for a stream in mode "whole"; open the stream with its number.

        Raises:
            AudioError: samples that cannot be sound, or too many of them.
        """
        data = as_bytes(samples)
        if len(data) > MAX_BLOB:
            raise AudioError(f"The clip has {len(data) // 4} samples, whole mode takes at most {MAX_BLOB // 4}.",
                             "Use audio mode 'stream'.")  # fmt: skip
        call = self._calls.ask(self._patience, EncodeAudio, msgspec.json.encode(config), data, poll=poll)
        assert isinstance(call.answer, AudioEncoded)
        return call.answer

    def open_stream(
        self, config: StreamConfig, picture: bytes, *, clip: int = 0, state: bytes = b"", want_state: bool = False,
        extras: bytes = b"", poll: Poll | None = None,
    ) -> RemoteStream:  # fmt: skip
        """Open a stream; loads the model first if that is not done.

        Args:
            config: Settings.
            picture: The reference picture as the bytes of its file (PNG, JPEG ...).
            clip: Number of an encoded clip, in mode "whole".
            state: `RemoteChunk.state` (or the bytes of `engine.StreamState`) after which to go on; the sound that
                the stream has heard (`RemoteStream.samples`) is not pushed again.
            want_state: Hand out the state after every chunk.
            extras: Features in place of the prompt's or the picture's own, from `extras.pack_extras`.
            poll: Called while this waits; what it raises ends it.

        Raises:
            LiveTalkError: ConfigError, ImageError, StateError ... as the engine raises them.
        """
        if len(picture) > MAX_BLOB:
            raise ImageError(f"The picture's file has {len(picture)} bytes, at most {MAX_BLOB} are taken.",
                             "Save it smaller, or as JPEG.")  # fmt: skip
        if len(state) > MAX_STATE:
            raise StateError(f"The state has {len(state)} bytes, at most {MAX_STATE} are taken.",
                             "Give what a chunk of a stream came with.")  # fmt: skip
        if len(extras) > MAX_BLOB:
            raise ConfigError(f"The features have {len(extras)} bytes, at most {MAX_BLOB} are taken.",
                              "Use half precision, or fewer rows.", setting="extras")  # fmt: skip
        call = self._calls.ask(
            self._patience, OpenStream, msgspec.json.encode(config), picture, clip, state, want_state, extras,
            poll=poll,
        )  # fmt: skip
        assert isinstance(call.answer, StreamOpened)
        return RemoteStream(self._calls, call.answer, call.descriptors[0])

    def decode_latents(
        self, latents: int, shape: tuple[int, ...], *, frames: int, height: int, width: int, tiled: bool = False,
        normalised: bool = True,
    ) -> RemoteStream:  # fmt: skip
        """Decode float32 latents [B,C,T,h,w]; the pieces come as the stream's chunks, one video after the other.

        Args:
            latents: Descriptor of a sealed memfd that holds exactly them; stays the caller's.
            shape: Their shape.
            frames, height, width: Most frames per piece (4 for one latent frame at a time, 16 is quick), and the size
                of the decoded pictures.
            tiled: Decode approximately, in tiles that overlap.
            normalised: Whether they are without the VAE's mean and deviation, like this model's own; those of other
                programs' graphs usually are not.
        """
        call = self._calls.ask(
            self._patience, DecodeLatents, list(shape), frames, height, width, tiled, normalised,
            descriptors=[latents],
        )  # fmt: skip
        assert isinstance(call.answer, StreamOpened)
        return RemoteStream(self._calls, call.answer, call.descriptors[0])

    def stats(self, timeout: float = ANSWER_SECONDS) -> StatsReport:
        """How things stand."""
        call = self._calls.ask(timeout, Stats)
        assert isinstance(call.answer, StatsReport)
        return call.answer

    def unload(self, timeout: float = ANSWER_SECONDS) -> None:
        """Stop the ranks, which frees their memory; open streams fail."""
        self._calls.ask(timeout, Unload)

    def shutdown(self, timeout: float = ANSWER_SECONDS) -> None:
        """End the daemon for all its clients."""
        self._calls.ask(timeout, Shutdown)
        self._calls.close()

    def close(self) -> None:
        """Give the lease back; streams of this client are closed."""
        self._calls.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _patience(self) -> float:
        """Longest time in which the ranks may start, load and answer; the daemon's own deadlines come first."""
        deadlines = self.config.deadlines
        tries = 1 + self.config.restarts
        return tries * (deadlines.start + deadlines.load) + deadlines.compile
