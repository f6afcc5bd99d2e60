"""A rank's end of the line to its supervisor: commands in, progress and answers out, and a clean death."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from .. import __version__, telemetry
from ..errors import LiveTalkError, ProtocolError
from .codec import MAX_BODY
from .connection import Channel, ConnectionEndedError, Receiver, close_all
from .daemon_config import WorkerConfig
from .wire import ErrorInfo
from .worker_messages import Beat, CancelRun, Command, Failure, Outcome, Phase, Ready, Stop

BEAT_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1
_ORPHANED = 70


class WorkerLink:
    """The line of one rank.

    Two threads stand behind it. One reads commands, so that a cancellation arrives while a chunk is computed.
    The other repeats where the rank is and ends the process when the supervisor is gone.

    Args:
        config: What the supervisor wrote for this rank.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self._sock = socket.socket(fileno=config.control)
        self._sock.setblocking(True)
        self._channel = Channel(self._sock)
        self._receiver: Receiver[Command] = Receiver(self._sock, Command, MAX_BODY)
        self._commands: queue.SimpleQueue[tuple[Command, list[int]]] = queue.SimpleQueue()
        self._cancelled: dict[int, int] = {}
        self._lock = threading.Lock()
        self._beat_lock = threading.Lock()  # held while sending: an old beat must not overtake a new one
        self._beat = Beat("starting", 0, 0, 0, 0, 0)
        _prepare_for_death(config.parent)
        threading.Thread(target=self._guard, name="livetalk-guard", daemon=True).start()
        threading.Thread(target=self._read, name="livetalk-commands", daemon=True).start()

    def ready(self) -> None:
        """Say that the rank can take commands."""
        self._channel.send(Ready(self.config.rank, __version__))
        self.progress("idle")

    def commands(self) -> Iterator[tuple[Command, list[int]]]:
        """Commands in their order, with descriptors that are the caller's; ends with Stop."""
        while (taken := self.take(None)) is not None and not isinstance(taken[0], Stop):
            yield taken

    def take(self, timeout: float | None) -> tuple[Command, list[int]] | None:
        """The next command, Stop included; None if none came in `timeout` seconds."""
        try:
            return self._commands.get(timeout=timeout)
        except queue.Empty:
            return None

    def progress(
        self, phase: Phase, stream: int = 0, chunk: int = 0, step: int = 0, steps: int = 0, *, completed: bool = False
    ) -> None:
        """Say where the rank is.

        Args:
            phase: What it does now.
            stream, chunk, step, steps: Of which stream, which chunk, which step of how many.
            completed: A piece of work is done (on a GPU: its event has completed). Only this counts as progress.
        """
        with self._beat_lock:
            self._beat = Beat(phase, stream, chunk, step, steps, self._beat.count + completed)
            self._channel.send(self._beat)

    def cancelled(self, stream: int, epoch: int) -> bool:
        """Whether the chunk of a stream that was started in this epoch is to be left."""
        with self._lock:
            return self._cancelled.get(stream, -1) >= epoch

    def answer(self, outcome: Outcome) -> None:
        """Answer the command that runs."""
        self._channel.send(outcome)

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """Answer the command that runs with an error."""
        self._channel.send(Failure(error, fatal, stream, chunk))

    def forget(self, stream: int) -> None:
        """A stream is closed; its cancellations need not be remembered."""
        with self._lock:
            self._cancelled.pop(stream, None)

    def _read(self) -> None:
        try:
            while True:
                for command, descriptors in self._receiver.read():
                    if isinstance(command, CancelRun):
                        close_all(descriptors)
                        with self._lock:
                            before = self._cancelled.get(command.stream, -1)
                            self._cancelled[command.stream] = max(before, command.epoch)
                        if self._beat.stream == command.stream and self._beat.phase != "idle":
                            telemetry.emit("cancel_heard", chunk=self._beat.chunk, step=self._beat.step)
                    else:
                        self._commands.put((command, descriptors))
        except ConnectionEndedError:
            os._exit(_ORPHANED)
        except ProtocolError as error:
            # A rank that hears no commands any more looks idle, and an idle rank has no deadline.
            telemetry.emit("command_unreadable", logging.ERROR, reason=error.message)
            os._exit(_ORPHANED)

    def _guard(self) -> None:
        """Wait for the pipe's end; look at the parent as well, in case a copy of the pipe lives on somewhere."""
        while True:
            pipe = [self.config.alive] if self.config.alive >= 0 else []
            ended, _, _ = select.select(pipe, [], [], BEAT_SECONDS)
            if ended or (self.config.parent and os.getppid() != self.config.parent):
                os._exit(_ORPHANED)
            # The reader notices a broken connection.
            with contextlib.suppress(LiveTalkError), self._beat_lock:
                self._channel.send(self._beat)


def _prepare_for_death(parent: int) -> None:
    """Die with the supervisor also when stopped, write stacks on SIGABRT, never a core file with user data."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(sys.stderr, all_threads=True)
    # The supervisor starts its ranks from its only thread, so the signal cannot come when a mere thread ends.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(_ORPHANED)
