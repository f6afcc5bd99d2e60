"""How ranks on other hosts get their commands: rank 0 hands on what its supervisor says, and collects the answers."""

from __future__ import annotations

import logging
import mmap
import os
import socket
import threading
import time
from collections.abc import Iterator

import msgspec

from .. import __version__, telemetry
from ..config import Settings, decode_config
from ..errors import ParallelError
from ..parallel.agreement import broadcast_bytes
from ..parallel.groups import Groups
from .codec import MAX_BODY, BodyDecoder, encode_body
from .daemon_config import WorkerConfig
from .host_board import GONE_SECONDS, LOOK_SECONDS, SILENT_SECONDS, Board, Watch
from .wire import SCHEMA_VERSION, ErrorInfo, to_info
from .worker_link import WorkerLink
from .worker_messages import Command, Failure, OpenDecode, Outcome, Phase, Stop

KEEPALIVE_SECONDS = 20.0
"""An idle leader says so: a follower waits in a collective, which has a deadline."""

GRACE_SECONDS = 2.0
"""So long may ranks differ in when they find out about a fault."""

_MAX_LATENTS = 2**34
_COMMANDS: BodyDecoder[Command] = BodyDecoder(Command)


class Greeting(Settings, frozen=True, kw_only=True):
    """First thing that rank 0 says to the others: what they are to run."""

    version: str
    schema: int
    config: WorkerConfig


def share_config(groups: Groups, config: WorkerConfig | None) -> WorkerConfig:
    """Rank 0's configuration on every rank, each with its own number; collective.

    Raises:
        ParallelError: the hosts run different versions.
    """
    data = None
    if config is not None:
        data = msgspec.json.encode(Greeting(version=__version__, schema=SCHEMA_VERSION, config=config))
    greeting = decode_config(Greeting, broadcast_bytes(groups, data, MAX_BODY), "rank 0")
    if (greeting.version, greeting.schema) != (__version__, SCHEMA_VERSION):
        raise ParallelError(
            f"Rank 0 runs version {greeting.version}, this host {__version__}.", "Install the same on every host."
        )
    return msgspec.structs.replace(greeting.config, rank=groups.rank)


class LeaderLine:
    """Rank 0's line: the supervisor's words go to all ranks, and an answer is given when all have one.

    Args:
        link: To the supervisor.
        groups: All ranks.
        boards: What the others say, for this thread and for the one that watches; see `Board`.
    """

    def __init__(self, link: WorkerLink, groups: Groups, boards: tuple[Board, Board]) -> None:
        self._link, self._groups, self._board = link, groups, boards[0]
        self._watch = Watch(boards[1], GRACE_SECONDS, self._tell)
        self._number = 0
        self._phase: Phase = "idle"

    def ready(self) -> None:
        """See `Line`."""
        self._link.ready()

    def commands(self) -> Iterator[tuple[Command, list[int]]]:
        """See `Line`."""
        while True:
            taken = self._link.take(KEEPALIVE_SECONDS)
            try:
                self._hand_on(taken)
            except ParallelError as error:
                # Nobody is left to lead, and no command runs whose failure this could be.
                gone = self._find_gone([rank for rank in range(self._groups.world) if rank != self._groups.rank])
                own = Failure(to_info(error), True)
                self._send(self._lost(gone[0], own) if gone else own)
                return
            if taken is None:
                continue
            if isinstance(taken[0], Stop):
                return
            self._number += 1
            self._watch.under_way(self._number)
            yield taken

    def progress(
        self, phase: Phase, stream: int = 0, chunk: int = 0, step: int = 0, steps: int = 0, *, completed: bool = False
    ) -> None:
        """See `Line`."""
        self._phase = phase if phase != "idle" else self._phase
        self._link.progress(phase, stream, chunk, step, steps, completed=completed)

    def cancelled(self, stream: int, epoch: int) -> bool:
        """See `Line`."""
        return self._link.cancelled(stream, epoch)

    def answer(self, outcome: Outcome) -> None:
        """See `Line`; an error of another rank takes the outcome's place."""
        self._watch.under_way(0)
        # Whoever waits here for a rank that hangs has a deadline, that of what is being done.
        self._link.progress(self._phase)
        while (missing := self._board.wait(self._number, 1.0)) and not self._gone(missing, GONE_SECONDS):
            pass
        self._link.progress("idle")
        if missing:
            self._send(self._lost(self._gone(missing, GONE_SECONDS)[0]))
        elif (failure := self._worst()) is not None:
            self._send(failure)
        else:
            self._board.clear(self._number)
            self._link.answer(outcome)

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """See `Line`. What another rank says may be the cause; one that says nothing is stuck without this one."""
        self._watch.under_way(0)
        own = Failure(error, fatal, stream, chunk)
        lost_them = error.code == ParallelError.code
        missing = self._board.wait(self._number, GRACE_SECONDS)
        if lost_them and (cause := self._worst()) is not None and cause.error.code != ParallelError.code:
            own = msgspec.structs.replace(cause, fatal=True)
        elif missing:
            gone = self._find_gone(missing) if lost_them else []
            own = self._lost(gone[0], own) if gone else msgspec.structs.replace(own, fatal=True)
        self._send(own)

    def forget(self, stream: int) -> None:
        """See `Line`."""
        self._link.forget(stream)

    def _find_gone(self, ranks: list[int]) -> list[int]:
        """Which of these ranks a failed collective has lost; none if all stay alive."""
        ends = time.monotonic() + SILENT_SECONDS
        while not (gone := self._gone(ranks, SILENT_SECONDS)) and time.monotonic() < ends:
            time.sleep(LOOK_SECONDS)
        return gone

    def _gone(self, ranks: list[int], seconds: float) -> list[int]:
        silent = self._watch.silent(seconds)
        return [rank for rank in ranks if rank in silent]

    def _lost(self, rank: int, own: Failure | None = None) -> Failure:
        """A rank whose process or host has ended without a word."""
        said = f" ({own.error.message.rstrip('.')})" if own else ""
        info = ErrorInfo(
            ParallelError.code, f"Rank {rank}, on another host, is gone: it has not been heard of any more{said}.",
            "Its host's log says more; start its torchrun again.", {"rank": rank},
        )  # fmt: skip
        return Failure(info, True, own.stream if own else 0, own.chunk if own else 0)

    def _worst(self) -> Failure | None:
        """The worst that the other ranks report of the command."""
        found = (self._board.read(self._number, rank) for rank in self._board.posted(self._number))
        return max((each for each in found if each is not None), key=lambda each: each.fatal, default=None)

    def _tell(self, rank: int, failure: Failure) -> None:
        """Another rank has failed and this one does not find out: it waits for it in a collective."""
        telemetry.emit("rank_error", logging.ERROR, rank=rank, error=failure.error.message)
        self._send(msgspec.structs.replace(failure, fatal=True))

    def _send(self, failure: Failure) -> None:
        self._link.fail(failure.error, fatal=failure.fatal, stream=failure.stream, chunk=failure.chunk)

    def _hand_on(self, taken: tuple[Command, list[int]] | None) -> None:
        """A command and its latents to all ranks; None: that this one is still there."""
        if taken is None:
            broadcast_bytes(self._groups, b"", MAX_BODY)
            return
        command, descriptors = taken
        broadcast_bytes(self._groups, encode_body(command), MAX_BODY)
        if isinstance(command, OpenDecode):
            with mmap.mmap(descriptors[0], 0, prot=mmap.PROT_READ) as memory:
                broadcast_bytes(self._groups, bytes(memory), _MAX_LATENTS)


class FollowerLine:
    """The line of a rank whose commands come from rank 0.

    Args:
        groups: All ranks.
        boards: For this thread, and for the one that says that this rank is alive; see `Board`.
    """

    def __init__(self, groups: Groups, boards: tuple[Board, Board]) -> None:
        self._groups, self._board = groups, boards[0]
        self._number = 0
        threading.Thread(target=boards[1].live, name="livetalk-alive", daemon=True).start()

    def ready(self) -> None:
        """Rank 0 knows: it has met this one."""

    def commands(self) -> Iterator[tuple[Command, list[int]]]:
        """See `Line`; ends with Stop, or with rank 0."""
        while True:
            try:
                data = broadcast_bytes(self._groups, None, MAX_BODY)
            except ParallelError as error:
                telemetry.emit("rank_0_gone", logging.WARNING, reason=error.message)
                return
            if not data:
                continue
            command = _COMMANDS.decode(data)
            if isinstance(command, Stop):
                return
            self._number += 1
            yield command, [self._receive_latents()] if isinstance(command, OpenDecode) else []

    def progress(
        self, phase: Phase, stream: int = 0, chunk: int = 0, step: int = 0, steps: int = 0, *, completed: bool = False
    ) -> None:
        """Nobody watches this rank alone: rank 0 waits for it at every step."""

    def cancelled(self, stream: int, epoch: int) -> bool:
        """Rank 0 hears of it, and all ranks agree."""
        return False

    def answer(self, outcome: Outcome) -> None:
        """See `Line`."""
        self._board.post(self._number, None)

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """See `Line`."""
        telemetry.emit("rank_error", logging.ERROR, rank=self._groups.rank, error=error.message)
        place: dict[str, str | int] = {"rank": self._groups.rank, "host": socket.gethostname()[:200]}
        located = ErrorInfo(error.code, error.message, error.hint, {**error.details, **place})
        self._board.post(self._number, Failure(located, fatal, stream, chunk))

    def forget(self, stream: int) -> None:
        """Nothing is remembered here."""

    def _receive_latents(self) -> int:
        data = broadcast_bytes(self._groups, None, _MAX_LATENTS)
        descriptor = os.memfd_create("livetalk-latents", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        return descriptor
