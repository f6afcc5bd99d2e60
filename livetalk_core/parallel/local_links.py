"""Sockets between the ranks of one host: bytes go straight from one rank to another, without a thread in between.

Gloo moves bytes on threads of its own, which on CPUs take the cores from the ranks that compute on them. Here the rank
that waits moves them (measured: docs/adr/004).
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ParallelError

_BUFFER = 1 << 22  # bytes that may be under way before the other rank reads; the system may give less
_MAX_PATH = 103  # bytes of a socket's path that every system takes


@dataclass
class _Part:
    """What is left of one message."""

    rest: memoryview


@dataclass
class _Link:
    """One peer: messages to and from it, in the order in which they were started."""

    peer: socket.socket
    outgoing: deque[_Part] = field(default_factory=deque)
    incoming: deque[_Part] = field(default_factory=deque)

    def send(self) -> bool:
        """Hand over what the system takes now; whether it took anything."""
        return _move(self.outgoing, self.peer.send)

    def receive(self) -> bool:
        """Take what has come; whether anything had."""
        return _move(self.incoming, self.peer.recv_into)

    @property
    def events(self) -> int:
        """What this link waits for, as `select.poll` names it."""
        return (select.POLLIN if self.incoming else 0) | (select.POLLOUT if self.outgoing else 0)


class LocalLinks:
    """This rank's sockets to all others.

    Args:
        rank: This rank.
        peers: Connected stream sockets by rank.
        timeout: Seconds that a rank waits without a byte coming or going.
    """

    def __init__(self, rank: int, peers: Mapping[int, socket.socket], timeout: float) -> None:
        self._rank, self._timeout = rank, timeout
        self._links = {number: _Link(peer) for number, peer in peers.items()}
        for peer in peers.values():
            peer.setblocking(False)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def exchange(self, sends: Mapping[int, memoryview], receives: Mapping[int, memoryview]) -> Callable[[], None]:
        """Start to send bytes to ranks and to receive bytes from ranks; the call returned waits until that is done.

        Raises:
            ParallelError: another rank is gone, or, from the call, too late.
        """
        parts = []
        for rank, view in receives.items():
            parts.append(_Part(view))
            self._links[rank].incoming.append(parts[-1])
        for rank, view in sends.items():
            parts.append(_Part(view))
            self._links[rank].outgoing.append(parts[-1])
            with self._reported(rank):
                self._links[rank].send()
        return lambda: self._wait(parts)

    def _wait(self, parts: list[_Part]) -> None:
        latest = time.monotonic() + self._timeout
        while any(part.rest for part in parts):
            if self._advance():
                latest = time.monotonic() + self._timeout
            elif not self._ready(latest - time.monotonic()):
                late = [rank for rank, link in self._links.items() if link.events]
                raise self._error(f"waited {self._timeout:.0f} s in vain for rank {late[0]}", late[0])

    def _advance(self) -> bool:
        """Move what can be moved now; whether anything could."""
        moved = False
        for rank, link in self._links.items():
            with self._reported(rank):
                moved = link.send() or moved
                moved = link.receive() or moved
        return moved

    def _ready(self, seconds: float) -> bool:
        """Sleep until something can be moved; False if nothing can in this time."""
        poll = select.poll()
        for link in self._links.values():
            if link.events:
                poll.register(link.peer, link.events)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    @contextmanager
    def _reported(self, rank: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(f"lost rank {rank} ({error.strerror or error})", rank) from error

    def _error(self, what: str, peer: int) -> ParallelError:
        return ParallelError(
            f"Rank {self._rank} {what}.", "That process ended or hangs; see its log.", rank=self._rank, peer=peer
        )


def _move(queue: deque[_Part], how: Callable[[memoryview], int]) -> bool:
    """Move the queue's bytes until the system would block; whether any were."""
    moved = False
    while queue:
        part = queue[0]
        if part.rest:
            try:
                count = how(part.rest)
            except BlockingIOError:
                return moved
            if not count:
                raise ConnectionResetError("it left")
            part.rest = part.rest[count:]
            moved = True
        if not part.rest:
            queue.popleft()
    return moved


@contextmanager
def open_links(
    place: Path, rank: int, world: int, timeout: float, agree: Callable[[bool], bool]
) -> Iterator[LocalLinks | None]:
    """Connect this rank to every other one of this host; None on all ranks if one of them has no such sockets.

    Args:
        place: A path in a private folder, the same for all ranks; until all have met, sockets stand beside it.
        rank, world: This rank, and how many there are.
        timeout: Seconds to wait for the others, now and later.
        agree: Waits for all ranks and says whether they all said True.

    Raises:
        ParallelError: another rank did not come.
    """
    with ExitStack() as stack:
        listener = _listen(_beside(place, rank), world, stack)
        if not agree(listener is not None) or listener is None:
            yield None
            return
        listener.settimeout(timeout)
        try:
            peers = {low: stack.enter_context(_connect(_beside(place, low), rank, timeout)) for low in range(rank)}
            for _ in range(rank + 1, world):
                peer = stack.enter_context(listener.accept()[0])
                number = _number_of(peer, timeout)
                if not rank < number < world or number in peers:
                    raise ConnectionError(f"one came as rank {number}")
                peers[number] = peer
        except OSError as error:
            raise ParallelError(
                f"Rank {rank} could not meet the others ({error}).", "See the logs of all ranks.", rank=rank
            ) from error
        _beside(place, rank).unlink(missing_ok=True)
        yield LocalLinks(rank, peers, timeout)


def _beside(place: Path, rank: int) -> Path:
    return place.with_name(f"{place.name}.{rank}")


def _listen(path: Path, world: int, stack: ExitStack) -> socket.socket | None:
    """A socket at this path, closed and gone with the stack; None if there can be none."""
    if sys.platform == "win32" or len(bytes(path)) > _MAX_PATH:
        return None
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        listener.bind(str(path))
        stack.callback(lambda: path.unlink(missing_ok=True))
        listener.listen(world)
    except OSError:
        return None
    return listener


def _connect(path: Path, rank: int, timeout: float) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        peer.settimeout(timeout)
        peer.connect(str(path))
        peer.sendall(rank.to_bytes(4, "big"))
    except OSError:
        peer.close()
        raise
    return peer


def _number_of(peer: socket.socket, timeout: float) -> int:
    """The rank at the other end, which says so first."""
    peer.settimeout(timeout)
    number = peer.recv(4, socket.MSG_WAITALL)
    if len(number) != 4:
        raise ConnectionResetError("one left before it said which it was")
    return int.from_bytes(number, "big")
