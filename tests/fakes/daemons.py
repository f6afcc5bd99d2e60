"""Daemons of fake ranks for tests, and the check that nothing of them is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fakes.engine_worker import digest, fake_frames
from fakes.faults import Fault, script
from livetalk_core.config import ChunkGeometry, StreamConfig
from livetalk_core.daemon.client import Client
from livetalk_core.daemon.daemon_config import DaemonConfig, Deadlines
from livetalk_core.daemon.process_group import module_environment

TESTS = str(Path(__file__).resolve().parents[1])
SCALE = float(os.environ.get("LIVETALK_TEST_SCALE", "1"))
"""Multiplies how often random faults are tried; 10 or more for a long run."""

GEOMETRY = ChunkGeometry()
CONFIG = StreamConfig(width=32, height=16, seed=7)
SLICE = GEOMETRY.slice_samples


def daemon_config(
    root: Path, *faults: Fault, world: int = 2, deadlines: Deadlines | None = None, **fields: Any
) -> DaemonConfig:
    """A daemon of fake ranks in a folder of its own."""
    options = {"faults": script(*faults), **fields.pop("options", {})}
    fields.setdefault("grace", 0.3)
    return DaemonConfig(
        world_size=world, worker="fakes.engine_worker", worker_path=(TESTS,), runtime_root=str(root),
        deadlines=deadlines or Deadlines(start=30, load=30, first_chunk=20), options=options, **fields,
    )  # fmt: skip


def sound(chunks: float, seed: int = 0) -> Any:
    """Random samples for so many chunks, float32 [S]."""
    return np.random.default_rng(seed).standard_normal(int(chunks * SLICE)).astype(np.float32)


def expected_frames(samples: Any, chunk: int, stream: int, frames: int = 28, seed: int = 7) -> Any:
    """What the fake engine must show in a chunk of a stream that has heard these samples from its beginning."""
    heard = ""
    for index in range(chunk + 1):
        heard = digest(heard, samples[index * SLICE : (index + 1) * SLICE].tobytes())
    return fake_frames(seed, stream, chunk, heard, frames, CONFIG.height, CONFIG.width)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until a condition held; AssertionError after too many."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def processes_of(root: Path) -> list[psutil.Process]:
    """All processes whose command line or working directory names this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            told = " ".join(process.cmdline()) + process.cwd()
        except psutil.Error:
            continue
        if str(root) in told:
            found.append(process)
    return found


def addresses(pid: int) -> set[str]:
    """Addresses at which a process and its descendants listen."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = [each for process in tree for each in process.net_connections("inet")]
    return {each.laddr.ip for each in found if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}


def program(code: str) -> subprocess.Popen[str]:
    """A Python of its own, which finds the package and the helpers of the tests; what it prints can be read."""
    environment = module_environment((TESTS,))
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def leftovers(root: Path) -> list[str]:
    """Everything that a daemon left in its folder besides logs and the one lock file."""
    return [str(path) for path in root.iterdir() if path.name not in ("logs", "start.lock")]


def assert_all_gone(root: Path, seconds: float = 15.0) -> None:
    """No process, socket, file or shared memory of any daemon in this folder is left."""
    wait_until(lambda: not processes_of(root), seconds, f"processes gone: {processes_of(root)}")
    wait_until(lambda: not leftovers(root), 2.0, f"folders gone: {leftovers(root)}")


@contextmanager
def running(config: DaemonConfig, on_event: Any = None) -> Iterator[Client]:
    """A client of a daemon that must be gone afterwards."""
    client = Client.start_or_join(config, on_event)
    try:
        yield client
    finally:
        client.close()
        assert config.runtime_root is not None
        if not config.detached:
            assert_all_gone(Path(config.runtime_root))
