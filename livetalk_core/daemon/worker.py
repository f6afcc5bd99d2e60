"""One rank of a daemon: `python -m livetalk_core.daemon.worker --config FILE`."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack

from .. import telemetry
from .worker_link import WorkerLink
from .worker_loop import WorkerLoop, read_worker_config


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process: works until the supervisor says stop, or is gone."""
    config = read_worker_config(arguments)
    log_to_stderr()
    # The line first: it watches over the supervisor's life while the libraries are imported.
    link = WorkerLink(config)
    from .rank_engine import ModelRankEngine

    with ExitStack() as life:
        WorkerLoop(link, ModelRankEngine(config, life)).serve()
    return 0


def log_to_stderr() -> None:
    """Write the program's events to standard error, which is the rank's log file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    telemetry.LOGGER.addHandler(handler)
    telemetry.LOGGER.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main())
