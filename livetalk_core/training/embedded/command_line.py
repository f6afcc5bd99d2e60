"""What the command lines of the runs share: their options, a log on stderr, errors without a traceback."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...errors import LiveTalkError

logger = logging.getLogger("livetalk")


def add_run_options(parser: argparse.ArgumentParser, minutes: float, seed: int = 0) -> None:
    """The options of every run with a time budget: --minutes, --seed, --resume."""
    parser.add_argument("--minutes", type=float, default=minutes, help="of the whole run, resumed parts included")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")


@contextmanager
def reporting(threads: int = 1) -> Iterator[None]:
    """Log to stderr, compute on so many threads, end with the words of an error that was raised on purpose."""
    handler = logging.StreamHandler(sys.stderr)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    torch.set_num_threads(threads)
    try:
        yield
    except LiveTalkError as error:
        raise SystemExit(f"error: {error}") from error
    finally:
        logger.removeHandler(handler)
