"""How ranks on several hosts hear of each other's faults while they are in the middle of something collective.

A rank that fails within a step cannot say so in a collective: the others are in another one. It writes what happened to
the store that the ranks met at, which rank 0 watches beside its work.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from .codec import MAX_BODY, BodyDecoder, encode_body
from .worker_messages import Failure

LOOK_SECONDS = 0.25
SILENT_SECONDS = 2.0
"""A rank that has not said for so long that it is alive is the one that is gone, where a collective has failed."""
GONE_SECONDS = 4.0
"""The same where nothing else says that a rank is gone."""

_FAILURES: BodyDecoder[Failure] = BodyDecoder(Failure)
# torch does not name it in public.
_StoreError: type[Exception] = getattr(dist, "DistStoreError", RuntimeError)


def open_store() -> Any:
    """A connection of its own to the store of this world: one that waits blocks nobody else."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
        timeout=timedelta(seconds=60),
    )  # fmt: skip


class Board:
    """What each rank says about each command, and that it is alive.

    Args:
        store: A store of bytes that all ranks see.
        rank, world: This rank, and how many there are.
    """

    def __init__(self, store: Any, rank: int, world: int) -> None:
        self._store, self.rank, self.world = store, rank, world
        self._seen: dict[int, tuple[int, float]] = {}

    def post(self, command: int, failure: Failure | None) -> None:
        """Say how a command went on this rank; nobody hears it where rank 0's host is gone."""
        with contextlib.suppress(RuntimeError):
            self._store.set(_key(command, self.rank), b"" if failure is None else encode_body(failure))

    def read(self, command: int, rank: int) -> Failure | None:
        """How a command went on another rank that has said so; None for well."""
        data = self._store.get(_key(command, rank))
        return _FAILURES.decode(data[:MAX_BODY]) if data else None

    def posted(self, command: int) -> list[int]:
        """The other ranks that have said how a command went."""
        return [rank for rank in self._others if self._store.check([_key(command, rank)])]

    def wait(self, command: int, seconds: float) -> list[int]:
        """Wait for the other ranks, not longer than this; returns those that have said nothing."""
        with contextlib.suppress(_StoreError):
            self._store.wait([_key(command, rank) for rank in self._others], timedelta(seconds=seconds))
            return []
        said = self.posted(command)
        return [rank for rank in self._others if rank not in said]

    def clear(self, command: int) -> None:
        """Forget a command that all have answered."""
        for rank in self._others:
            self._store.delete_key(_key(command, rank))

    def live(self) -> None:
        """Say that this rank is alive, until the process ends or the store is gone."""
        count = 0
        with contextlib.suppress(RuntimeError):
            while True:
                count += 1
                self._store.set(f"livetalk/alive/{self.rank}", str(count))
                time.sleep(LOOK_SECONDS)

    def silent(self, seconds: float) -> list[int]:
        """Ranks that have not been alive for so long; to be asked again and again."""
        now = time.monotonic()
        for rank in self._others:
            key = f"livetalk/alive/{rank}"
            count = int(self._store.get(key)[:20]) if self._store.check([key]) else 0
            if self._seen.get(rank, (-1, 0.0))[0] != count:
                self._seen[rank] = (count, now)
        return [rank for rank, (_, since) in self._seen.items() if now - since > seconds]

    @property
    def _others(self) -> list[int]:
        return [rank for rank in range(self.world) if rank != self.rank]


class Watch:
    """Rank 0 looks at the board beside its work and tells of a rank that failed while it is itself under way.

    Args:
        board: On a connection of its own.
        grace: Seconds in which rank 0 may still find out itself.
        tell: Is called with the failure, once per command.
    """

    def __init__(self, board: Board, grace: float, tell: Callable[[int, Failure], None]) -> None:
        self._board, self._grace, self._tell = board, grace, tell
        self._command = 0
        threading.Thread(target=self._look, name="livetalk-hosts", daemon=True).start()

    def under_way(self, command: int) -> None:
        """Rank 0 is busy with this command; 0: it looks itself."""
        self._command = command

    def _look(self) -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                time.sleep(LOOK_SECONDS)
                self._board.silent(SILENT_SECONDS)
                command = self._command
                found = self._failures(command) if command else None
                if found is None:
                    continue
                time.sleep(self._grace)
                if self._command == command:
                    self._command = 0
                    self._tell(*found)

    def _failures(self, command: int) -> tuple[int, Failure] | None:
        for rank in self._board.posted(command):
            if (failure := self._board.read(command, rank)) is not None:
                return rank, failure
        return None

    def silent(self, seconds: float) -> list[int]:
        """See `Board.silent`."""
        return self._board.silent(seconds)


def _key(command: int, rank: int) -> str:
    return f"livetalk/command/{command}/{rank}"
