"""Scripted faults: at rank r, chunk k, step s of generation g something breaks, always at the same place."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from typing import Literal

from livetalk_core.errors import NumericalError, OutOfMemoryError

Kind = Literal[
    "kill", "hang", "raise", "numerical", "out_of_memory", "cuda_out_of_memory", "cuda_error", "slow",
    "exit_at_import", "never_ready", "bad_load", "no_memory_to_load", "ignore_sigterm",
    "skip_collective", "nan", "other_noise",
]  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault; chunk and step -1 mean "at start"; generation 0 means every one."""

    kind: Kind
    rank: int = 0
    chunk: int = -1
    step: int = -1
    generation: int = 1
    once: bool = False


def fail_at(
    kind: Kind, rank: int = 0, chunk: int = 0, step: int = 0, generation: int = 1, *, once: bool = False
) -> Fault:
    """A fault in the middle of a chunk, of any stream or only of the first that comes there."""
    return Fault(kind, rank, chunk, step, generation, once)


def at_start(kind: Kind, rank: int = 0, generation: int = 0) -> Fault:
    """A fault before the first chunk."""
    return Fault(kind, rank, generation=generation)


def script(*faults: Fault) -> str:
    """Faults as the text of a worker option."""
    return json.dumps([asdict(fault) for fault in faults])


class Injector:
    """Breaks what the script says.

    Args:
        text: From `script`.
        rank, generation: Where this process is.
    """

    def __init__(self, text: str, rank: int, generation: int) -> None:
        faults = [Fault(**each) for each in json.loads(text or "[]")]
        self._faults = [f for f in faults if f.rank == rank and f.generation in (0, generation)]

    def has(self, kind: Kind) -> bool:
        """Whether a fault at start is of this kind."""
        return any(fault.kind == kind and fault.chunk == -1 for fault in self._faults)

    @property
    def noisy(self) -> bool:
        """Whether any fault is in the noise."""
        return any(fault.kind in ("nan", "other_noise") for fault in self._faults)

    def hits(self, kind: Kind, chunk: int, step: int = 0) -> bool:
        """Whether a fault of this kind is scripted for this place."""
        return any((fault.kind, fault.chunk, fault.step) == (kind, chunk, step) for fault in self._faults)

    def at(self, chunk: int, step: int) -> None:
        """Called before each step."""
        for fault in [each for each in self._faults if (each.chunk, each.step) == (chunk, step)]:
            if fault.once:
                self._faults.remove(fault)
            _break(fault.kind, chunk)


def _break(kind: Kind, chunk: int) -> None:
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "raise":
        raise RuntimeError(f"scripted fault in {os.path.expanduser('~')}/model")
    elif kind == "numerical":
        raise NumericalError("The model produced nan.", "Check the model.", chunk=chunk)
    elif kind == "out_of_memory":
        raise OutOfMemoryError("Out of memory: 40 GB needed, 24 GB free.", "Use more ranks.", needed=40, free=24)
    elif kind == "cuda_out_of_memory":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 40.00 GiB. GPU 0 has a capacity ...")
    elif kind == "cuda_error":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    elif kind == "slow":
        time.sleep(3600)
