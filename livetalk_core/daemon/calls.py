"""Questions and their answers: requests by number, each answer to the one who asked, late ones to nobody."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DaemonUnavailableError, DeadlineError, LiveTalkError, ProtocolError
from .codec import MAX_BODY
from .connection import Channel, ConnectionEndedError, Receiver, close_all
from .messages import Event, Failed, Health, Progress, Reply, ToClient
from .wire import to_error

Poll = Callable[[], None]
"""Called at least every `POLL_SECONDS` while somebody waits; what it raises ends the waiting."""

POLL_SECONDS = 0.05


class Call:
    """One request that was sent; thread-safe.

    Attributes:
        answer: The reply, when it is there; `descriptors` came with it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.answer: Reply | None = None
        self.descriptors: list[int] = []
        self.error: LiveTalkError | None = None
        self._done = threading.Event()

    def wait(self, timeout: float | None, poll: Poll | None = None) -> bool:
        """Whether the answer is there within `timeout` seconds; `poll` is called again and again until then."""
        if poll is None:
            return self._done.wait(timeout)
        deadline = Deadline(timeout)
        while not self._done.wait(POLL_SECONDS):
            poll()
            if deadline.left == 0:
                return False
        return True

    def resolve(self, answer: Reply | None, descriptors: list[int], error: LiveTalkError | None) -> None:
        """Wake whoever waits."""
        self.answer, self.descriptors, self.error = answer, descriptors, error
        self._done.set()


class Calls:
    """A connection on which requests are answered in any order.

    Args:
        sock: Connected, token sent; owned from here on.
        on_event: Called on the reading thread for every event; must not wait.
    """

    def __init__(self, sock: socket.socket, on_event: Callable[[Event], None]) -> None:
        self._sock, self._on_event = sock, on_event
        self._channel = Channel(sock)
        self._receiver: Receiver[ToClient] = Receiver(sock, ToClient, MAX_BODY)
        self._numbers = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._gone: LiveTalkError | None = None
        self._process = os.getpid()
        self._reader = threading.Thread(target=self._read, name="livetalk-client", daemon=True)
        self._reader.start()

    def start(self, kind: Callable[..., Any], *fields: Any, descriptors: Sequence[int] = ()) -> Call:
        """Send `kind(number, *fields)`.

        Raises:
            DaemonUnavailableError: the daemon is gone.
        """
        if os.getpid() != self._process:
            raise DaemonUnavailableError("This connection belongs to another process.", "Connect again after a fork.")
        call = Call(next(self._numbers))
        with self._lock:
            if self._gone is not None:
                raise again(self._gone)
            self._open[call.number] = call
        try:
            self._channel.send(kind(call.number, *fields), descriptors)
        except LiveTalkError:
            self.abandon(call)
            raise
        return call

    def ask(
        self, timeout: float, kind: Callable[..., Any], *fields: Any, descriptors: Sequence[int] = (),
        poll: Poll | None = None,
    ) -> Call:  # fmt: skip
        """Send a request and wait for its answer.

        Raises:
            DeadlineError: no answer in time; one that comes later is dropped.
            LiveTalkError: of the kind that the daemon answered.
        """
        call = self.start(kind, *fields, descriptors=descriptors)
        try:
            answered = call.wait(timeout, poll)
        except BaseException:
            self.abandon(call)
            raise
        if not answered:
            self.abandon(call)
            name = getattr(kind, "__name__", "request")
            raise DeadlineError(
                f"The daemon did not answer {name} within {timeout:g} s.", "Look at its logs.", request=name
            )
        if call.error is not None:
            raise again(call.error)
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for this answer any more."""
        with self._lock:
            self._open.pop(call.number, None)

    def close(self) -> None:
        """End the connection; what is open fails."""
        self._channel.hang_up()
        if threading.current_thread() is not self._reader:
            self._reader.join(5.0)

    def _read(self) -> None:
        reason: LiveTalkError = DaemonUnavailableError("The daemon has gone away.", "Start it again.")
        try:
            while True:
                for message, descriptors in self._receiver.read():
                    self._dispatch(message, descriptors)
        except ConnectionEndedError:
            pass
        except ProtocolError as error:
            reason = error
        finally:
            self._end(reason)

    def _dispatch(self, message: ToClient, descriptors: list[int]) -> None:
        if isinstance(message, Progress | Health):
            close_all(descriptors)
            self._on_event(message)
            return
        with self._lock:
            call = self._open.pop(message.request, None)
        if call is None:  # too late, or an event in the form of a failure: asked again, it is said again
            close_all(descriptors)
        elif isinstance(message, Failed):
            close_all(descriptors)
            call.resolve(None, [], to_error(message.error))
        else:
            call.resolve(message, descriptors, None)

    def _end(self, reason: LiveTalkError) -> None:
        with self._lock:
            self._gone = reason
            left, self._open = list(self._open.values()), {}
        for call in left:
            call.resolve(None, [], reason)
        self._receiver.close()
        with contextlib.suppress(OSError):
            self._sock.close()


def again(error: LiveTalkError) -> LiveTalkError:
    """A copy to be raised, so that several waiters do not share one traceback."""
    return type(error)(error.message, error.hint, **error.details)


class Deadline:
    """Time left until a moment."""

    def __init__(self, seconds: float | None) -> None:
        self._ends = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())
