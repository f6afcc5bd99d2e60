"""One rank of a daemon: `python -m livetalk_core.daemon.worker --config FILE`.

Under `torchrun` on several hosts: `--interface NAME` on all of them; rank 0 alone has a configuration and a
supervisor, and tells the others what to run.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import telemetry
from .daemon_config import WorkerConfig
from .rank_interface import Line, RankEngine
from .worker_link import WorkerLink
from .worker_loop import WorkerLoop, read_config_file

if TYPE_CHECKING:
    from ..parallel.groups import Groups

MakeEngine = Callable[["WorkerConfig", ExitStack, "Groups"], RankEngine]

PATIENCE = 600.0
"""Seconds that ranks on several hosts wait for each other."""


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process: works until the supervisor says stop, or is gone."""
    parser = argparse.ArgumentParser(prog="livetalk-rank", description=__doc__)
    parser.add_argument("--config", type=Path, help="Configuration of this rank, read once.")
    parser.add_argument("--interface", help="Several hosts: network device for the traffic between ranks.")
    parser.add_argument("--device", default="auto", help="Several hosts: cpu, cuda or auto.")
    given = parser.parse_args(arguments)
    if given.config is None and given.interface is None:
        parser.error("one of --config and --interface is needed")
    log_to_stderr()
    with ExitStack() as life:
        if given.interface is None:
            _serve_near(read_config_file(given.config), life)
        else:
            serve_far(given.interface, given.device, given.config, life)
    return 0


def log_to_stderr() -> None:
    """Write the program's events to standard error, which is the rank's log file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    telemetry.LOGGER.addHandler(handler)
    telemetry.LOGGER.setLevel(logging.INFO)


def _serve_near(config: WorkerConfig, life: ExitStack) -> None:
    """A rank that its supervisor started."""
    # The line first: it watches over the supervisor's life while the libraries are imported.
    link = WorkerLink(config)
    from .rank_engine import ModelRankEngine

    WorkerLoop(link, ModelRankEngine(config, life)).serve()


def serve_far(
    interface: str, device: str, path: Path | None, life: ExitStack, make_engine: MakeEngine | None = None
) -> None:
    """A rank that `torchrun` started; rank 0 has the supervisor's socket as its standard input.

    Args:
        interface, device: See `main`.
        path: Rank 0's configuration.
        life: Holds what lives as long as the process.
        make_engine: Makes the rank's engine; `ModelRankEngine` if left out.
    """
    rank, world = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    config = link = None
    if rank == 0:
        if path is None:
            raise SystemExit("Rank 0 is started by `livetalk daemon start` on the first host.")
        config = msgspec.structs.replace(read_config_file(path), parent=os.getppid())
        link = WorkerLink(config)
    from ..parallel.groups import bind_to, open_groups
    from .host_board import Board, open_store
    from .host_line import FollowerLine, LeaderLine, share_config
    from .rank_device import rank_device
    from .rank_engine import ModelRankEngine

    bind_to(interface)
    local, neighbours = (int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    groups = life.enter_context(
        open_groups(rank, world, None, rank_device(device, local, neighbours), timeout=PATIENCE)
    )
    boards = (Board(open_store(), rank, world), Board(open_store(), rank, world))
    line: Line = FollowerLine(groups, boards) if link is None else LeaderLine(link, groups, boards)
    engine = (make_engine or ModelRankEngine)(share_config(groups, config), life, groups)
    WorkerLoop(line, engine).serve()


if __name__ == "__main__":
    sys.exit(main())
