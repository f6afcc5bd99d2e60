"""The door of the daemon: who may come in, how long they may take, and their messages once inside."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__, telemetry
from ..errors import DaemonUnavailableError, ProtocolError
from .codec import MAX_BODY
from .connection import Connection, ConnectionEndedError, close_all
from .messages import Failed, Hello, Request, Welcome
from .runtime_dir import socket_path
from .wire import to_info

HANDSHAKE_SECONDS = 2.0
FRAME_SECONDS = 10.0
MAX_CLIENTS = 32
MAX_STRANGERS = 16
STRANGER_BODY = 4096
TOKEN_BYTES = 32

Handler = Callable[[int, Any, list[int]], None]


@dataclass
class Visitor:
    """A connection: a stranger until token and Hello are right, a client after that."""

    number: int
    connection: Connection[Request]
    came: float
    token: bytearray = field(default_factory=bytearray)
    trusted: bool = False
    welcome: bool = False
    broken: bool = False
    partial_since: float | None = None


class Server:
    """Listens, checks, reads and writes; see `Outbox`.

    Args:
        directory: Runtime folder of the daemon.
        key: What clients must ask for.
        selector: Of the event loop; callables are registered as data.
        on_message, on_arrival, on_leave: Called for clients only, never for strangers.
        greeting: World size and whether the daemon is detached.
        tcp: Listen on a port of 127.0.0.1 in place of a socket in the folder.
    """

    def __init__(
        self, directory: Path, key: str, selector: selectors.BaseSelector, on_message: Handler,
        on_arrival: Callable[[int], None], on_leave: Callable[[int], None],
        greeting: tuple[int, bool], *, tcp: bool = False,
    ) -> None:  # fmt: skip
        self.token = os.urandom(TOKEN_BYTES)
        self._key, self._selector, self._greeting = key, selector, greeting
        self._on_message, self._on_arrival, self._on_leave = on_message, on_arrival, on_leave
        self._visitors: dict[int, Visitor] = {}
        self._count = 0
        self._listener = _listen_tcp() if tcp else _listen_unix(directory)
        self.port: int = self._listener.getsockname()[1] if tcp else 0
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return sum(visitor.welcome for visitor in self._visitors.values())

    def send(self, client: int, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send to a client that is still there."""
        visitor = self._visitors.get(client)
        if visitor is not None and visitor.welcome:
            try:
                visitor.connection.send(message, descriptors)
            except ConnectionEndedError:
                visitor.broken = True  # removed by `tick`, not in the middle of whoever is sending
            self._watch(visitor)

    def broadcast(self, message: Any) -> None:
        """Send to all clients."""
        for number in list(self._visitors):
            self.send(number, message)

    def tick(self, now: float) -> None:
        """Close the connections of those who are gone, do not read, or take too long to say what they want."""
        for visitor in list(self._visitors.values()):
            if visitor.broken:
                self._remove(visitor)
                continue
            late = not visitor.welcome and now - visitor.came > HANDSHAKE_SECONDS
            since = visitor.partial_since
            if late or (since is not None and now - since > FRAME_SECONDS):
                self._refuse(visitor, "too slow")

    def close(self) -> None:
        """Send what is queued as far as it goes, and close everything."""
        for visitor in list(self._visitors.values()):
            with contextlib.suppress(ConnectionEndedError):
                visitor.connection.flush()
            self._remove(visitor)
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, _: int) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        strangers = len(self._visitors) - self.clients
        if strangers >= MAX_STRANGERS or len(self._visitors) >= MAX_CLIENTS + MAX_STRANGERS or not _same_user(sock):
            sock.close()
            return
        self._count += 1
        connection: Connection[Request] = Connection(sock, Request, STRANGER_BODY)
        visitor = Visitor(self._count, connection, time.monotonic())
        self._visitors[visitor.number] = visitor
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._ready(visitor, mask))

    def _ready(self, visitor: Visitor, mask: int) -> None:
        if visitor.number not in self._visitors:  # removed earlier in the same turn of the loop
            return
        try:
            if mask & selectors.EVENT_WRITE:
                visitor.connection.flush()
            if mask & selectors.EVENT_READ:
                self._read(visitor)
        except BlockingIOError:
            pass
        except ConnectionEndedError:
            self._remove(visitor)
            return
        except ProtocolError as error:
            self._refuse(visitor, error.message)
            return
        self._watch(visitor)

    def _read(self, visitor: Visitor) -> None:
        if not visitor.trusted:
            self._read_token(visitor)
            return
        arrived = visitor.connection.receiver.read()
        if not visitor.connection.receiver.buffer.partial:
            visitor.partial_since = None
        elif arrived or visitor.partial_since is None:
            # A frame of a slow peer gets its time once, however many bytes trickle in.
            visitor.partial_since = time.monotonic()
        while arrived:
            message, descriptors = arrived.pop(0)
            try:
                self._take(visitor, message, descriptors)
            except (ProtocolError, ConnectionEndedError):
                for _, rest in arrived:
                    close_all(rest)
                raise

    def _take(self, visitor: Visitor, message: Any, descriptors: list[int]) -> None:
        if visitor.welcome and not isinstance(message, Hello):
            self._on_message(visitor.number, message, descriptors)
            return
        close_all(descriptors)
        if visitor.welcome or not isinstance(message, Hello):
            raise ProtocolError("A message came out of order.")
        self._greet(visitor, message)

    def _read_token(self, visitor: Visitor) -> None:
        """The token comes first and is compared before anything of what follows is looked at."""
        try:
            data = visitor.connection.sock.recv(TOKEN_BYTES - len(visitor.token))
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise
            raise ConnectionEndedError from None
        if not data:
            raise ConnectionEndedError
        visitor.token += data
        if len(visitor.token) == TOKEN_BYTES:
            visitor.trusted = hmac.compare_digest(bytes(visitor.token), self.token)
            visitor.token.clear()
            if not visitor.trusted:
                raise ProtocolError("wrong token")

    def _greet(self, visitor: Visitor, message: Hello) -> None:
        refusal = self._refusal(message)
        if refusal is not None:
            visitor.connection.send(Failed(message.request, to_info(refusal)))
            raise ProtocolError(refusal.message)
        visitor.welcome = True
        visitor.connection.receiver.buffer.limit = MAX_BODY
        self._on_arrival(visitor.number)
        visitor.connection.send(Welcome(message.request, os.getpid(), *self._greeting))

    def _refusal(self, message: Hello) -> DaemonUnavailableError | None:
        """Why somebody with the right token may not come in all the same."""
        if message.version != __version__:
            return DaemonUnavailableError(
                f"The daemon runs LiveTalk {__version__}, this program {message.version}.",
                "Stop the daemon; the next program starts one of its own version.",
            )
        if message.key != self._key:
            return DaemonUnavailableError(
                "The daemon runs another model, or with other settings, than were asked for.", "Start one of your own."
            )
        if self.clients >= MAX_CLIENTS:
            return DaemonUnavailableError(
                f"{MAX_CLIENTS} programs use this daemon, which is as many as it takes.", "Close some of them."
            )
        return None

    def _refuse(self, visitor: Visitor, why: str) -> None:
        telemetry.emit("connection_refused", logging.WARNING, reason=why)
        self._remove(visitor)

    def _watch(self, visitor: Visitor) -> None:
        if visitor.number in self._visitors:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if visitor.connection.wants_write else 0)
            key = self._selector.get_key(visitor.connection.sock)
            if key.events != events:
                self._selector.modify(visitor.connection.sock, events, key.data)

    def _remove(self, visitor: Visitor) -> None:
        if self._visitors.pop(visitor.number, None) is not None:
            self._selector.unregister(visitor.connection.sock)
            visitor.connection.close()
            if visitor.welcome:
                self._on_leave(visitor.number)


def _listen_unix(directory: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = socket_path(directory)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _listen_tcp() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    return listener


def _same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end belongs to this user; where the system tells."""
    if sock.family != getattr(socket, "AF_UNIX", None) or not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return bool(user == os.getuid())
