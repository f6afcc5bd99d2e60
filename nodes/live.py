"""Live streams: pieces of fragmented MP4 from a running node to any number of readers, in bounded memory."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable

MAX_WAITING_PIECES = 16
"""A reader that falls this many chunks behind is dropped."""

MAX_READERS = 32


class Reader:
    """One reader's queue. `take` never waits: `wake` says when there may be more.

    Attributes:
        dropped: It was too slow.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.dropped = False
        self._wake = wake
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._ended = False

    def give(self, piece: bytes) -> bool:
        """Add a piece; False, and nothing more will come, if the reader is too far behind."""
        with self._lock:
            if len(self._pieces) >= MAX_WAITING_PIECES:
                self.dropped, self._ended = True, True
                self._pieces.clear()
            else:
                self._pieces.append(piece)
        self._wake()
        return not self.dropped

    def end(self) -> None:
        """Nothing follows."""
        with self._lock:
            self._ended = True
        self._wake()

    def take(self) -> bytes | None:
        """The next piece; b"" if there is none yet, None at the end."""
        with self._lock:
            if self._pieces:
                return self._pieces.popleft()
            return None if self._ended else b""


class LiveStream:
    """What one run shows: a head, and the newest piece for readers that come late.

    Attributes:
        name: 128 random bits: who knows it may watch.
        content_type: MIME type, once the head is there.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.content_type = ""
        self._lock = threading.Lock()
        self._head = self._newest = b""
        self._readers: list[Reader] = []
        self._ended = False

    @property
    def readers(self) -> int:
        """How many watch."""
        with self._lock:
            return len(self._readers)

    def begin(self, head: bytes, content_type: str) -> None:
        """Give the head to all that wait for it."""
        with self._lock:
            self._head, self.content_type = head, content_type
            self._give(head)

    def put(self, piece: bytes) -> None:
        """Give a piece to all readers."""
        with self._lock:
            self._newest = piece
            self._give(piece)

    def end(self) -> None:
        """No piece follows."""
        with self._lock:
            self._ended = True
            for reader in self._readers:
                reader.end()
            self._readers.clear()

    def subscribe(self, wake: Callable[[], None]) -> Reader | None:
        """A reader that gets the head, the newest piece and all that follow; None where there are too many."""
        reader = Reader(wake)
        with self._lock:
            if len(self._readers) >= MAX_READERS:
                return None
            for piece in (self._head, self._newest):
                if piece:
                    reader.give(piece)
            if self._ended:
                reader.end()
            else:
                self._readers.append(reader)
        return reader

    def unsubscribe(self, reader: Reader) -> None:
        """The reader has gone."""
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)

    def _give(self, piece: bytes) -> None:
        self._readers = [reader for reader in self._readers if reader.give(piece)]


class LiveStreams:
    """The live streams of this process, by name; those that have ended are forgotten."""

    def __init__(self) -> None:
        self._streams: dict[str, LiveStream] = {}

    def open(self) -> LiveStream:
        """A new stream under a name that cannot be guessed."""
        stream = LiveStream(secrets.token_hex(16))
        self._streams[stream.name] = stream
        return stream

    def close(self, stream: LiveStream) -> None:
        """End a stream; its readers still get what waits for them."""
        self._streams.pop(stream.name, None)
        stream.end()

    def find(self, name: str) -> LiveStream | None:
        """A running stream."""
        return self._streams.get(name)

    def status(self) -> int:
        """How many run."""
        return len(self._streams)


LIVE = LiveStreams()
"""The ones of this process."""
