"""A rank of several hosts with scripted faults, started by `torchrun` in place of the product's worker."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from fakes.faults import Injector
from fakes.faulty_worker import faulty_engine
from livetalk_core.daemon.daemon_config import WorkerConfig
from livetalk_core.daemon.worker import log_to_stderr, serve_far


def _make_engine(config: WorkerConfig, life: ExitStack, groups: Any) -> Any:
    injector = Injector(config.options.get("faults", ""), config.rank, config.generation)
    options = {name: value for name, value in config.options.items() if name != "faults"}
    return faulty_engine(msgspec.structs.replace(config, options=options), life, injector, groups)


def main() -> int:
    """Entry of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("--interface")
    parser.add_argument("--device")
    given = parser.parse_args()
    log_to_stderr()
    with ExitStack() as life:
        serve_far(given.interface, given.device, given.config, life, _make_engine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
