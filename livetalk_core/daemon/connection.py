"""One socket that carries messages and descriptors, without waiting (supervisor) or with deadlines (peers)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from ..errors import DaemonUnavailableError, DeadlineError, ProtocolError
from .codec import MAX_DESCRIPTORS, BodyDecoder, FrameBuffer, encode

READ_BYTES = 256 * 1024
MAX_QUEUED = 64 * 2**20
# Small messages cost several times their length in memory, so their number is bounded too.
MAX_QUEUED_MESSAGES = 4096

T = TypeVar("T")


class ConnectionEndedError(Exception):
    """The peer closed the connection; handled by its owner, never shown."""


class Receiver(Generic[T]):
    """Bytes and descriptors of a socket -> messages.

    Args:
        sock: The socket.
        kind: Union of the messages that may come.
        limit: Longest body accepted.
    """

    def __init__(self, sock: socket.socket, kind: Any, limit: int) -> None:
        self._sock = sock
        self._decoder: BodyDecoder[T] = BodyDecoder(kind)
        self._descriptors: deque[int] = deque()
        self.buffer = FrameBuffer(limit)

    def read(self) -> list[tuple[T, list[int]]]:
        """One read from the socket -> complete messages with their descriptors, which are the caller's then.

        Raises:
            BlockingIOError: nothing to read. ConnectionEndedError: the peer is gone.
            ProtocolError: not our messages; the connection must be closed.
        """
        try:
            data = self._receive()
        except BlockingIOError:
            raise
        except OSError:
            raise ConnectionEndedError from None
        if not data:
            raise ConnectionEndedError
        self.buffer.feed(data)
        messages: list[tuple[T, list[int]]] = []
        try:
            while (frame := self.buffer.next()) is not None:
                if frame.descriptors > len(self._descriptors):
                    raise ProtocolError("A descriptor that was announced did not come along.")
                given = [self._descriptors.popleft() for _ in range(frame.descriptors)]
                try:
                    messages.append((self._decoder.decode(frame.body), given))
                except ProtocolError:
                    close_all(given)
                    raise
            if len(self._descriptors) > MAX_DESCRIPTORS:
                raise ProtocolError("Descriptors came that were not announced.")
        except ProtocolError:
            for _, given in messages:
                close_all(given)
            raise
        return messages

    def close(self) -> None:
        """Close descriptors that nobody took."""
        close_all(self._descriptors)
        self._descriptors.clear()

    def _receive(self) -> bytes:
        if self._sock.family != socket.AF_UNIX:
            return self._sock.recv(READ_BYTES)
        data, descriptors, flags, _ = socket.recv_fds(
            self._sock, READ_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        self._descriptors.extend(descriptors)
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("More descriptors came along than a message may carry.")
        return data


class Connection(Generic[T]):
    """A socket that never waits: what cannot be sent at once is queued, up to a limit.

    Args:
        sock: A connected stream socket; owned from here on.
        kind: Union of the messages that may come.
        limit: Longest body accepted.
    """

    def __init__(self, sock: socket.socket, kind: Any, limit: int) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.receiver: Receiver[T] = Receiver(sock, kind, limit)
        self._queue: deque[tuple[memoryview, list[int]]] = deque()
        self._queued = 0

    @property
    def wants_write(self) -> bool:
        """Whether bytes are queued."""
        return bool(self._queue)

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send a message or queue it; the descriptors stay the caller's.

        Raises:
            ConnectionEndedError: the peer is gone, or does not read.
        """
        data = encode(message, len(descriptors))
        self._queued += len(data)
        if self._queued > MAX_QUEUED or len(self._queue) >= MAX_QUEUED_MESSAGES:
            raise ConnectionEndedError
        self._queue.append((memoryview(data), [os.dup(item) for item in descriptors]))
        self.flush()

    def flush(self) -> None:
        """Send what is queued as far as the socket takes it."""
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                sent = socket.send_fds(self.sock, [data], descriptors) if descriptors else self.sock.send(data)
            except BlockingIOError:
                return
            except OSError:
                raise ConnectionEndedError from None
            close_all(descriptors)
            self._queued -= sent
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = (data[sent:], [])

    def close(self) -> None:
        """Close the socket and everything queued."""
        for _, descriptors in self._queue:
            close_all(descriptors)
        self._queue.clear()
        self.receiver.close()
        self.sock.close()


class Channel:
    """The sending half of a blocking socket; safe to use from several threads.

    Args:
        sock: A connected stream socket whose receiving half somebody else reads.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._broken = False

    def send(self, message: Any, descriptors: Sequence[int] = (), timeout: float = 30.0) -> None:
        """Send a whole message.

        Raises:
            DeadlineError: the peer did not take it in time; the connection is of no use then.
            DaemonUnavailableError: the peer is gone.
        """
        data = memoryview(encode(message, len(descriptors)))
        ends = time.monotonic() + timeout
        with self._lock:
            if self._broken:
                raise DaemonUnavailableError("The connection to the daemon is broken.")
            try:
                self._send_all(data, list(descriptors), ends, timeout)
            except DeadlineError:
                self._broken = True
                self.hang_up()
                raise
            except OSError:
                self._broken = True
                raise DaemonUnavailableError("The daemon has gone away.", "Start it again.") from None

    def hang_up(self) -> None:
        """End both halves, which wakes the reader."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send_all(self, data: memoryview, descriptors: list[int], ends: float, timeout: float) -> None:
        while data:
            try:
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors, socket.MSG_DONTWAIT)
                    descriptors = []
                else:
                    sent = self._sock.send(data, socket.MSG_DONTWAIT)
                data = data[sent:]
            except BlockingIOError:
                left = ends - time.monotonic()
                if left <= 0:
                    raise DeadlineError(
                        f"The peer took nothing for {timeout:g} s.", "Stop the daemon and start it again."
                    ) from None
                select.select([], [self._sock], [], left)


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors; one that is closed already is no error."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
