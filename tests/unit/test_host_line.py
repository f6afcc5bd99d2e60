"""Rank 0's line to ranks on other hosts that have gone while nothing was computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from torch import Tensor

from livetalk_core.daemon import host_line
from livetalk_core.daemon.host_board import Board
from livetalk_core.daemon.host_line import LeaderLine
from livetalk_core.daemon.wire import ErrorInfo
from livetalk_core.daemon.worker_messages import Command, ForgetClip
from livetalk_core.errors import ParallelError

pytestmark = pytest.mark.unit


class _Gone:
    """A world whose other rank takes nothing any more."""

    rank, world, alone = 0, 2, False

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        raise ParallelError("Rank 0 lost its peers in broadcast (Connection closed by peer).")


class _Link:
    """A supervisor's end that says one thing, or nothing."""

    def __init__(self, command: Command | None) -> None:
        self.command = command
        self.failed: list[tuple[ErrorInfo, bool]] = []

    def take(self, timeout: float | None) -> tuple[Command, list[int]] | None:
        return None if self.command is None else (self.command, [])

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        self.failed.append((error, fatal))


@pytest.mark.parametrize("command", [None, ForgetClip(3)])
def test_host_that_has_gone_while_idle_is_named(monkeypatch: pytest.MonkeyPatch, command: Command | None) -> None:
    monkeypatch.setattr(host_line, "SILENT_SECONDS", 0.05)
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    link: Any = _Link(command)
    world: Any = _Gone()
    line = LeaderLine(link, world, (Board(store, 0, 2), Board(store, 0, 2)))
    assert list(line.commands()) == [], "there is nobody left to lead"
    ((error, fatal),) = link.failed
    assert fatal and error.code == ParallelError.code and error.details["rank"] == 1
    assert "Rank 1, on another host, is gone" in error.message and "Connection closed by peer" in error.message
