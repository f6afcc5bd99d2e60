"""Starts a world of processes over gloo, each running every case, and collects what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
SECONDS = 300


@lru_cache(maxsize=8)
def run_world(world: int, suite: str) -> dict[str, list[dict[str, Any]]]:
    """Results of every case of a suite, one entry per rank; started once per test session.

    Args:
        world: Number of ranks.
        suite: A module beside this one with `cases(world)`: a dict of functions from Groups to a dict.
    """
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).with_name("rank_main.py")), suite, str(world), folder]
        ranks = [
            subprocess.Popen([*command, str(rank)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for rank in range(world)
        ]
        try:
            logs = [process.communicate(timeout=SECONDS)[0].decode(errors="replace") for process in ranks]
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        for rank, (process, log) in enumerate(zip(ranks, logs, strict=True)):
            assert process.returncode == 0, f"rank {rank} of {world} ended with {process.returncode}:\n{log[-4000:]}"
        results = [json.loads(Path(folder, f"rank{rank}.json").read_text()) for rank in range(world)]
    return {name: [result[name] for result in results] for name in results[0]}


def worst(results: list[dict[str, Any]], key: str) -> float:
    """Largest value of a measurement over the ranks."""
    return max(float(result[key]) for result in results)
