"""How ranks on other hosts get their commands: rank 0 hands on what its supervisor says, and collects the answers."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator

import msgspec
import numpy as np
import torch

from .. import __version__, telemetry
from ..config import Settings, decode_config
from ..errors import ParallelError
from ..parallel.agreement import broadcast_bytes
from ..parallel.groups import Groups
from .codec import MAX_BODY, BodyDecoder, encode_body
from .daemon_config import WorkerConfig
from .wire import SCHEMA_VERSION, ErrorInfo
from .worker_link import WorkerLink
from .worker_messages import Command, Failure, OpenDecode, Outcome, Phase, Stop

KEEPALIVE_SECONDS = 20.0
"""An idle leader says so: a follower waits in a collective, which has a deadline."""

_MAX_LATENTS = 2**34
_FAILURES: BodyDecoder[Failure] = BodyDecoder(Failure)
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
    """

    def __init__(self, link: WorkerLink, groups: Groups) -> None:
        self._link, self._groups = link, groups

    def ready(self) -> None:
        """See `Line`."""
        self._link.ready()

    def commands(self) -> Iterator[tuple[Command, list[int]]]:
        """See `Line`."""
        while True:
            taken = self._link.take(KEEPALIVE_SECONDS)
            if taken is None:
                broadcast_bytes(self._groups, b"", MAX_BODY)
                continue
            command, descriptors = taken
            broadcast_bytes(self._groups, encode_body(command), MAX_BODY)
            if isinstance(command, Stop):
                return
            if isinstance(command, OpenDecode):
                self._hand_on_latents(descriptors[0])
            yield command, descriptors

    def progress(
        self, phase: Phase, stream: int = 0, chunk: int = 0, step: int = 0, steps: int = 0, *, completed: bool = False
    ) -> None:
        """See `Line`."""
        self._link.progress(phase, stream, chunk, step, steps, completed=completed)

    def cancelled(self, stream: int, epoch: int) -> bool:
        """See `Line`."""
        return self._link.cancelled(stream, epoch)

    def answer(self, outcome: Outcome) -> None:
        """See `Line`; an error of another rank takes the outcome's place."""
        if (failure := self._collect(b"")) is None:
            self._link.answer(outcome)
        else:
            self._link.fail(failure.error, fatal=failure.fatal, stream=failure.stream, chunk=failure.chunk)

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """See `Line`; told at once, because the others may never come to the meeting."""
        self._link.fail(error, fatal=fatal, stream=stream, chunk=chunk)
        self._collect(encode_body(Failure(error, fatal, stream, chunk)))

    def forget(self, stream: int) -> None:
        """See `Line`."""
        self._link.forget(stream)

    def _collect(self, failure: bytes) -> Failure | None:
        # Whoever waits here for a rank that hangs has a deadline, like any step.
        self._link.progress("finish")
        worst = collect_failures(self._groups, failure)
        self._link.progress("idle")
        return worst

    def _hand_on_latents(self, descriptor: int) -> None:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as memory:
            broadcast_bytes(self._groups, bytes(memory), _MAX_LATENTS)


class FollowerLine:
    """The line of a rank whose commands come from rank 0.

    Args:
        groups: All ranks.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

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
        collect_failures(self._groups, b"")

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """See `Line`."""
        telemetry.emit("rank_error", logging.ERROR, rank=self._groups.rank, error=error.message)
        located = ErrorInfo(error.code, error.message, error.hint, {**error.details, "rank": self._groups.rank})
        collect_failures(self._groups, encode_body(Failure(located, fatal, stream, chunk)))

    def forget(self, stream: int) -> None:
        """Nothing is remembered here."""

    def _receive_latents(self) -> int:
        data = broadcast_bytes(self._groups, None, _MAX_LATENTS)
        descriptor = os.memfd_create("livetalk-latents", os.MFD_CLOEXEC)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        return descriptor


def collect_failures(groups: Groups, failure: bytes) -> Failure | None:
    """Every rank says how its command went, b"" for well; the worst failure on every rank; collective."""
    lengths = groups.all_gather(torch.tensor([len(failure)], dtype=torch.int64)).flatten().tolist()
    found = [
        _FAILURES.decode(broadcast_bytes(groups, failure if rank == groups.rank else None, MAX_BODY, rank))
        for rank in np.flatnonzero(lengths).tolist()
    ]
    return max(found, key=lambda each: each.fatal, default=None)
